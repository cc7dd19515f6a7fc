"""What a run and a comparison tell people: plans, cards, figures, reports."""
