NAME = "late b"
