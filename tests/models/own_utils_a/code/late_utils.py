NAME = "late a"
