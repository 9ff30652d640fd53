"""A command in Python: tells what it was given, and adds up the numbers in a file."""

import json
import os
import pathlib
import sys

from wit_world import exports


class Run(exports.Run):
    def run(self):
        numbers = pathlib.Path(sys.argv[1]).read_text().split()
        told = {"sum": sum(map(int, numbers)), "greeting": os.environ["GREETING"]}
        print(json.dumps(told, sort_keys=True))
