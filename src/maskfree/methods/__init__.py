"""The methods, one import line each."""

from maskfree.methods.groupvit import GroupViT as GroupViT
from maskfree.methods.groupvit import GroupViTConfig as GroupViTConfig
from maskfree.methods.ovsegmentor import OVSegmentor as OVSegmentor
from maskfree.methods.ovsegmentor import OVSegmentorConfig as OVSegmentorConfig
from maskfree.methods.student import Student as Student
from maskfree.methods.student import StudentConfig as StudentConfig
from maskfree.methods.vilseg import ViLSeg as ViLSeg
from maskfree.methods.vilseg import ViLSegConfig as ViLSegConfig
