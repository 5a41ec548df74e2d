"""Convert released checkpoints of other code bases without unpickling them."""

from maskfree.hub.convert.clip import convert_clip as convert_clip
from maskfree.hub.convert.groupvit import convert_groupvit as convert_groupvit
from maskfree.hub.convert.ovsegmentor import convert_ovsegmentor as convert_ovsegmentor
from maskfree.hub.convert.ovsegmentor import official_names as official_names
from maskfree.hub.convert.ovsegmentor import ovsegmentor_config as ovsegmentor_config
from maskfree.hub.convert.ovsegmentor import renamed as renamed
from maskfree.hub.convert.released_file import read_released as read_released
