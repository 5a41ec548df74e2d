"""Configs of all methods; the networks are imported when a config builds them."""

from maskfree.methods.clips4.config import CLIPS4Config as CLIPS4Config
from maskfree.methods.groupvit.config import GroupViTConfig as GroupViTConfig
from maskfree.methods.maskclip.config import MaskCLIPConfig as MaskCLIPConfig
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig as OVSegmentorConfig
from maskfree.methods.student.config import StudentConfig as StudentConfig
from maskfree.methods.vilseg.config import ViLSegConfig as ViLSegConfig
