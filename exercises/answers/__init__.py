"""What the check knows of each exercise: one file per exercise, and here the list of them.

To write an exercise of your own, add a file with an Exercise here and put it into EXERCISES; add
the file that you hand out to the folder above. The tests then try each of its mistakes.
"""
from .block import BLOCK
from .isoflop import ISOFLOP
from .kd import KD
from .masking import MASKING
from .minilm import MINILM
from .mlm import MLM
from .plan import PLAN
from .tinybert import TINYBERT

EXERCISES = {1: BLOCK, 2: PLAN, 3: MASKING, 4: MLM, 5: KD, 6: TINYBERT, 7: MINILM, 8: ISOFLOP}
