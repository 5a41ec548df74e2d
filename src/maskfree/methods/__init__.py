"""The methods, one import line each."""

from maskfree.methods.student import Student as Student
from maskfree.methods.student import StudentConfig as StudentConfig
from maskfree.methods.vilseg import ViLSeg as ViLSeg
from maskfree.methods.vilseg import ViLSegConfig as ViLSegConfig
