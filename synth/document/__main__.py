"""Regenerate the committed JSON Schemas from the wire types."""

from importlib import resources

from synth.document import generate_schemas
from synth.files import write_whole

if __name__ == "__main__":
    for name, schema in generate_schemas().items():
        write_whole(str(resources.files("synth") / "schemas" / name), schema)
