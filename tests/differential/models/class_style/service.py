"""One class; the function that the handler string names does not exist."""

import json


class Service:
    def __init__(self):
        self.ready = False

    def initialize(self, context):
        self.ready = True

    def handle(self, data, context):
        return [json.dumps({"ready": self.ready}) for _ in data]
