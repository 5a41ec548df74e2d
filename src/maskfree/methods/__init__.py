"""The methods, one import line each."""

from maskfree.methods.vilseg import ViLSeg as ViLSeg
from maskfree.methods.vilseg import ViLSegConfig as ViLSegConfig
