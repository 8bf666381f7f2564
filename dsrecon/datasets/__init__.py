"""Real series: some bundled, some fetched; each with its times, names, units, licence and checksum."""

from dsrecon.datasets.bundled import ecg as ecg
from dsrecon.datasets.bundled import nino as nino
from dsrecon.datasets.bundled import resting_ecg as resting_ecg
from dsrecon.datasets.bundled import sunspots as sunspots
from dsrecon.datasets.catalogue import available as available
from dsrecon.datasets.fetched import cache_folder as cache_folder
from dsrecon.datasets.fetched import ett as ett
