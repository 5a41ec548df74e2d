"""The methods, one import line each: their settings, which import the networks when they build them."""

from maskfree.methods.clips4.config import CLIPS4Config as CLIPS4Config
from maskfree.methods.groupvit.config import GroupViTConfig as GroupViTConfig
from maskfree.methods.maskclip.config import MaskCLIPConfig as MaskCLIPConfig
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig as OVSegmentorConfig
from maskfree.methods.student.config import StudentConfig as StudentConfig
from maskfree.methods.vilseg.config import ViLSegConfig as ViLSegConfig
