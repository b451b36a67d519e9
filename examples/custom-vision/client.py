"""Names the fruit in a picture: `python client.py http://localhost:8080 [PICTURE]`. Needs numpy and pillow."""

import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image


def main(url: str, picture: Path) -> None:
    image = Image.open(picture).convert("RGB").resize((224, 224))
    # What the model's metadata says of its input: Bgr8, NominalRange_0_255.
    pixels = np.asarray(image, np.float32)[:, :, ::-1].transpose(2, 0, 1)
    body = json.dumps({"data": [pixels.tolist()]}).encode()
    request = urllib.request.Request(f"{url}/score", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        print(response.read().decode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else Path(__file__).with_name("picture.png"))
