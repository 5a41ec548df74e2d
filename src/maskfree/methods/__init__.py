"""The methods, one import line each."""

from maskfree.methods.clips4 import CLIPS4 as CLIPS4
from maskfree.methods.clips4 import CLIPS4Config as CLIPS4Config
from maskfree.methods.groupvit import GroupViT as GroupViT
from maskfree.methods.groupvit import GroupViTConfig as GroupViTConfig
from maskfree.methods.maskclip import MaskCLIP as MaskCLIP
from maskfree.methods.maskclip import MaskCLIPConfig as MaskCLIPConfig
from maskfree.methods.ovsegmentor import OVSegmentor as OVSegmentor
from maskfree.methods.ovsegmentor import OVSegmentorConfig as OVSegmentorConfig
from maskfree.methods.student import Student as Student
from maskfree.methods.student import StudentConfig as StudentConfig
from maskfree.methods.vilseg import ViLSeg as ViLSeg
from maskfree.methods.vilseg import ViLSegConfig as ViLSegConfig
