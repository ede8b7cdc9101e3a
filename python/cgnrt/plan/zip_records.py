"""The records of a ZIP archive that small and large plans have in common."""

from __future__ import annotations

import struct

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
LOCAL_SIGNATURE = b"PK\x03\x04"
CENTRAL_SIGNATURE = b"PK\x01\x02"
END_SIGNATURE = b"PK\x05\x06"
DATE = 0x0021  # 1980-01-01, the earliest that ZIP can say: equal members give equal bytes
PADDING = struct.Struct("<2sH")  # one extra field "CG" of zeros brings the data to the alignment
PADDING_ID = b"CG"
