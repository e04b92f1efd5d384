def line(number):
    return f"part {number}\n"
