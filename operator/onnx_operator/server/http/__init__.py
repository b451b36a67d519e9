"""HTTP/1.1: connections, routes, and the bodies of the Open Inference Protocol and of ``/score``."""
