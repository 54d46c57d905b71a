"""Training: LoRAs by DreamBooth, ZipLoRA's coefficients, LoRA.rar's hypernetwork."""

from lorarar.train.adapters import Trained, read_list, read_trained
from lorarar.train.dreambooth import train_lora
from lorarar.train.hypernetwork import train_hypernetwork
from lorarar.train.inputs import own_inputs, pictured_inputs
from lorarar.train.objective import merging_loss, similarity
from lorarar.train.pictures import read_captions
from lorarar.train.words import features as word_features
from lorarar.train.words import own_words
from lorarar.train.ziplora import optimise

__all__ = [
    "Trained",
    "merging_loss",
    "optimise",
    "own_inputs",
    "own_words",
    "pictured_inputs",
    "read_captions",
    "read_list",
    "read_trained",
    "similarity",
    "train_hypernetwork",
    "train_lora",
    "word_features",
]
