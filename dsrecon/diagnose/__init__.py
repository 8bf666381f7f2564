"""`diagnose`: what is wrong with a fit, in plain words, and what to try."""

from dsrecon.diagnose.door import Diagnosis as Diagnosis
from dsrecon.diagnose.door import diagnose as diagnose
from dsrecon.diagnose.evidence import Evidence as Evidence
from dsrecon.diagnose.rules import Figure as Figure
from dsrecon.diagnose.rules import Finding as Finding
