"""Asks what is in a drawn picture: `python client.py http://localhost:8080`. Needs numpy."""

import base64
import json
import sys
import urllib.request

import numpy as np


def picture(width: int = 320, height: int = 240) -> np.ndarray:
    """A sky, a field and a red ball."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = 200 - rows // 2
    pixels[height // 2 :, :, 1] = 140
    pixels[(rows - 130) ** 2 + (columns - 200) ** 2 < 45**2] = (220, 30, 30)
    return pixels


def main(url: str) -> None:
    pixels = picture()
    rgb = base64.b64encode(pixels.tobytes()).decode()
    body = json.dumps({"width": pixels.shape[1], "height": pixels.shape[0], "rgb": rgb}).encode()
    request = urllib.request.Request(f"{url}/score", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        print(response.read().decode())


if __name__ == "__main__":
    main(sys.argv[1])
