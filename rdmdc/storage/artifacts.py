"""Artifacts on disk: every function that saves or loads one, by the name that stages use.

Each is saved whole or not at all, checked when it is loaded, and never a pickle. Tensors are
safetensors files, rows are Parquet.
"""

from rdmdc.errors import ArtifactError as ArtifactError
from rdmdc.storage.images import load_images as load_images
from rdmdc.storage.images import load_poisons as load_poisons
from rdmdc.storage.images import load_synthetic as load_synthetic
from rdmdc.storage.images import load_target as load_target
from rdmdc.storage.images import save_images as save_images
from rdmdc.storage.images import save_poisons as save_poisons
from rdmdc.storage.images import save_synthetic as save_synthetic
from rdmdc.storage.images import save_target as save_target
from rdmdc.storage.provenance import Provenance as Provenance
from rdmdc.storage.provenance import sha256 as sha256
from rdmdc.storage.provenance import verified as verified
from rdmdc.storage.rows import load_all_rows as load_all_rows
from rdmdc.storage.rows import load_rows as load_rows
from rdmdc.storage.rows import save_rows as save_rows
from rdmdc.storage.screenings import load_screening as load_screening
from rdmdc.storage.screenings import save_screening as save_screening
from rdmdc.storage.weights import load_weights as load_weights
from rdmdc.storage.weights import save_weights as save_weights
from rdmdc.storage.writing import save_bytes as save_bytes
from rdmdc.storage.writing import write as write
