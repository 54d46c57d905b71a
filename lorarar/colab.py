"""Names of the old form; `lorarar.bookkit.notebook` is where they are now."""

from lorarar.bookkit.notebook import BOOTSTRAP as BOOTSTRAP
from lorarar.bookkit.notebook import sibling_text as sibling_text
from lorarar.bookkit.notebook import write_siblings as write_siblings
