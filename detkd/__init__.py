"""detkd: distil large detectors and segmenters into compact ones.

The losses (`detkd.losses`), ops (`detkd.ops`) and hooks (`detkd.hooks`) need torch alone; everything else comes with the
package's extras.
"""

__version__ = "0.1.0"
