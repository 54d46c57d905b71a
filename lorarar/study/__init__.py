"""The main experiment: every method on every pair of a split's subjects and styles, judged alike.

LoRA.rar's comparison (arXiv 2412.05148, §4 and supplement A1.3): a prompt "a sks <class> in <family> style"
for each pair, ten images from one list of seeds that all methods share, and for each image two verdicts, on
its subject and on its style. It goes in steps, each of which keeps what is done and can be killed any time:

    lorarar study make          what takes minutes for a pair, one file each (ziplora, joint)
    lorarar study images        the images, one folder per method and pair: a cell
    lorarar study verdicts      a judge's verdicts, one file in each cell
    lorarar study metrics       CLIP-I, DINO and CLIP-T of all images, and records them
    lorarar study times         how long each method takes to merge, in one run
    lorarar study record        verdicts and tables into data/recorded
    lorarar study judges        the judges and metrics on drawings, whose truth is known
    lorarar study tune          several hypernetworks on validation, to choose one
    lorarar study ladder        what LoRA.rar's coefficients are worth beside rivals that know less
    lorarar study networks      hypernetworks by several recipes, by the error of their coefficients
    lorarar study means         mean coefficients, to merge any pair by

and people can be asked as the papers asked them:

    lorarar study questions     the questions of a study, drawn from the images, in one file
    lorarar study serve         its web page, which keeps the answers in that file
    lorarar study export        the answers as CSV
    lorarar study analyse       who is preferred, whether people agree, and whether the judge agrees with them
    lorarar study power         how many people and pairs such a study needs, by simulation

and merged pictures can be labelled by eye:

    lorarar study labels draw   the pictures, in an order that tells nothing of their method
    lorarar study labels sheet  the pages that a labeller looks at, and a table to fill in
    lorarar study labels agree  who agrees with such a table: the shipped labels, the judges
    lorarar study labels record the judges' verdicts on the pictures, and how they agree with the labels

A cell appears whole or not at all, and is made anew only if something that decides it has changed. What is
chosen by looking at results (a variant of a method) is refused on the test split: tune on validation.
"""
