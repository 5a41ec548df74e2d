"""The methods, one import line each: their settings, which import the networks when they build them."""

from maskfree.methods.clips4_config import CLIPS4Config as CLIPS4Config
from maskfree.methods.groupvit_config import GroupViTConfig as GroupViTConfig
from maskfree.methods.maskclip_config import MaskCLIPConfig as MaskCLIPConfig
from maskfree.methods.ovsegmentor_config import OVSegmentorConfig as OVSegmentorConfig
from maskfree.methods.student_config import StudentConfig as StudentConfig
from maskfree.methods.vilseg_config import ViLSegConfig as ViLSegConfig
