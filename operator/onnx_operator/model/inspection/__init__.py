"""An inspection from URI to verdict: the source is read here, untrusted bytes are parsed in a child."""
