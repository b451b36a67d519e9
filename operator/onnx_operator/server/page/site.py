"""The page's files: ours, and those of Netron that show a graph of ONNX.

Of Netron (https://github.com/lutzroeder/netron) the package's files are served as they are, but not its start-up code,
which asks services elsewhere and stops working with age: ``host.js`` stands in its place.
"""

import re
from importlib import resources
from importlib.resources.abc import Traversable

from onnx_operator.server.page.static import StaticFile

_OURS = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "elements.js": "text/javascript; charset=utf-8",
    "elsewhere.js": "text/javascript; charset=utf-8",
    "prediction.js": "text/javascript; charset=utf-8",
    "tensors.js": "text/javascript; charset=utf-8",
    "picture.js": "text/javascript; charset=utf-8",
}
_NETRON = (
    *("base.js", "dagre.js", "grapher.js", "grapher.css", "json.js", "message.js", "onnx-metadata.json"),
    *("onnx-proto.js", "onnx-schema.js", "onnx.js", "protobuf.js", "tar.js", "text.js", "view.js", "worker.js"),
    *("xml.js", "zip.js", "flatbuffers.js", "flexbuffers.js", "hdf5.js"),
)
_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "json": "application/json"}
_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GRAPH_POLICY = (
    # Netron sets styles of elements; it runs no script but its own files.
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def site() -> dict[str, StaticFile]:
    """The files by their path. Without the netron package the page has no graph, and says so."""
    ours = resources.files("onnx_operator.server.page") / "files"
    found: dict[str, StaticFile] = {}
    for name, media_type in _OURS.items():
        headers = _COMMON | {"Content-Security-Policy": _POLICY} if name == "index.html" else _COMMON
        path = "/" if name == "index.html" else f"/page/{name}"
        found[path] = StaticFile((ours / name).read_bytes(), media_type, headers)
    try:
        netron = resources.files("netron")
    except ModuleNotFoundError:
        return found
    for name in _NETRON:
        file = netron / name
        if file.is_file():
            media_type = _TYPES[name.rpartition(".")[2]]
            found[f"/page/graph/{name}"] = StaticFile(file.read_bytes(), media_type, _COMMON)
    host = (ours / "host.js").read_bytes()
    found["/page/graph/host.js"] = StaticFile(host, _TYPES["js"], _COMMON)
    document = graph_document(netron).encode()
    headers = _COMMON | {"Content-Security-Policy": _GRAPH_POLICY}
    found["/page/graph/"] = StaticFile(document, "text/html; charset=utf-8", headers)
    return found


def graph_document(netron: Traversable) -> str:
    """Netron's document with our script in place of its own, and without its policy, icons and links."""
    text = (netron / "index.html").read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>\s*', "", text)
    text = re.sub(r'<link rel="(?!stylesheet)[^>]*>\s*', "", text)
    text = re.sub(r"<script[^>]*></script>", '<script type="module" src="host.js"></script>', text, count=1)
    # Its menu opens other files and its author's pages.
    text = text.replace("</head>", "<style>.menu, .menu-button { display: none !important; }</style>\n</head>", 1)
    return re.sub(r'href="https?://[^"]*"', 'href="#"', text)
