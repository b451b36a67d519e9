"""JSON Schema of the Kubernetes objects and texts that the chart's values hold.

As strict as is useful before anything reaches a cluster: what a typo would break is closed, the depths of an object
that the API server checks anyway (affinities, sources of volumes) are left to it.
Patterns are those of Kubernetes, for Go's regular expressions:
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from typing import Any

Schema = dict[str, Any]

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|k|Ki|[MGTPE]i?|[eE][-+]?[0-9]+)?$"
MAX_ID = 2**31 - 1

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}


def pattern(expression: str, max_length: int | None = None, *, empty: bool = False) -> Schema:
    """A text that an expression matches as a whole, or, with ``empty``, the empty one."""
    whole = f"^({expression})?$" if empty else f"^{expression}$"
    return STRING | {"pattern": whole} | ({"maxLength": max_length} if max_length else {})


def one_of(*choices: str) -> Schema:
    """One of these texts."""
    return STRING | {"enum": list(choices)}


def whole(minimum: int, maximum: int | None = None) -> Schema:
    """A whole number within bounds, both included."""
    return {"type": "integer", "minimum": minimum} | ({"maximum": maximum} if maximum is not None else {})


def items(of: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": of}


def closed(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object that has no other fields."""
    must = {"required": list(required)} if required else {}
    return {"type": "object", "additionalProperties": False, **must, "properties": properties}


def by_key(key: Schema, of: Schema) -> Schema:
    """An object whose keys are such texts. Not by ``propertyNames``: Helm 4 names another value in that error."""
    return {"type": "object", "additionalProperties": False, "patternProperties": {key["pattern"]: of}}


NAMESPACE = pattern(LABEL, 63)
NAME = pattern(SUBDOMAIN, 253)
OPTIONAL_NAME = pattern(SUBDOMAIN, 253, empty=True)
LABEL_KEY = pattern(rf"({SUBDOMAIN}/)?{_WORD}", 253 + 1 + 63)
LABEL_VALUE = pattern(_WORD, 63, empty=True)
LABELS = by_key(LABEL_KEY, LABEL_VALUE)
ANNOTATIONS = by_key(LABEL_KEY, STRING)
AMOUNT: Schema = {"anyOf": [STRING | {"pattern": QUANTITY}, {"type": "number", "minimum": 0}]}
AMOUNTS = by_key(LABEL_KEY, AMOUNT)
RESOURCES = closed(limits=AMOUNTS, requests=AMOUNTS, claims=items(closed(("name",), name=STRING, request=STRING)))
PULL_POLICY = one_of("Always", "IfNotPresent", "Never")

_VARIABLE = pattern("[-._a-zA-Z][-._a-zA-Z0-9]*")
ENV = items(closed(("name",), name=_VARIABLE, value=STRING, valueFrom=OBJECT))
_REFERENCE = closed(("name",), name=NAME, optional=BOOLEAN)
ENV_FROM = items(closed(prefix=STRING, configMapRef=_REFERENCE, secretRef=_REFERENCE))

TOLERATIONS = items(
    closed(
        key=LABEL_KEY,
        operator=one_of("Exists", "Equal", "Lt", "Gt"),
        value=STRING,
        effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        tolerationSeconds={"type": "integer"},
    )
)
AFFINITY = closed(nodeAffinity=OBJECT, podAffinity=OBJECT, podAntiAffinity=OBJECT)
SPREAD = items(
    closed(
        ("maxSkew", "topologyKey", "whenUnsatisfiable"),
        maxSkew=whole(1),
        topologyKey=LABEL_KEY,
        whenUnsatisfiable=one_of("DoNotSchedule", "ScheduleAnyway"),
        labelSelector=OBJECT,
        matchLabelKeys=items(LABEL_KEY),
        minDomains=whole(1),
        nodeAffinityPolicy=one_of("Honor", "Ignore"),
        nodeTaintsPolicy=one_of("Honor", "Ignore"),
    )
)
# Volumes have thirty kinds of sources, and get more: the API server knows them.
VOLUMES: Schema = items({"type": "object", "required": ["name"], "properties": {"name": NAMESPACE}, "minProperties": 2})
MOUNTS = items(
    closed(
        ("name", "mountPath"),
        name=NAMESPACE,
        mountPath=pattern("/.*"),
        subPath=STRING,
        subPathExpr=STRING,
        readOnly=BOOLEAN,
        recursiveReadOnly=STRING,
        mountPropagation=STRING,
    )
)

# The operator never runs as root: 0 is no user of it.
USER = whole(1, MAX_ID)
# The inspector's user is the next one.
SETTINGS_USER: Schema = {"anyOf": [whole(1, MAX_ID - 1), {"type": "null"}]}
_BOTH: dict[str, Schema] = {
    "runAsUser": USER,
    "runAsGroup": whole(0, MAX_ID),
    "runAsNonRoot": BOOLEAN,
    "seLinuxOptions": closed(level=STRING, role=STRING, type=STRING, user=STRING),
    "seccompProfile": closed(
        ("type",), type=one_of("RuntimeDefault", "Localhost", "Unconfined"), localhostProfile=STRING
    ),
    "appArmorProfile": closed(
        ("type",), type=one_of("RuntimeDefault", "Localhost", "Unconfined"), localhostProfile=STRING
    ),
}
POD_SECURITY = closed(
    **_BOTH,
    fsGroup=whole(0, MAX_ID),
    fsGroupChangePolicy=one_of("OnRootMismatch", "Always"),
    supplementalGroups=items(whole(0, MAX_ID)),
    supplementalGroupsPolicy=one_of("Merge", "Strict"),
    sysctls=items(closed(("name", "value"), name=STRING, value=STRING)),
)
CONTAINER_SECURITY = closed(
    **_BOTH,
    allowPrivilegeEscalation=BOOLEAN,
    privileged=BOOLEAN,
    procMount=STRING,
    readOnlyRootFilesystem=BOOLEAN,
    capabilities=closed(add=items(STRING), drop=items(STRING)),
)

DNS = closed(
    nameservers=items(STRING), searches=items(STRING), options=items(closed(("name",), name=STRING, value=STRING))
)
HOST_ALIASES = items(closed(("ip", "hostnames"), ip=pattern("[0-9A-Fa-f:.]+"), hostnames=items(NAME)))
EXTRA_OBJECTS: Schema = items(
    {"anyOf": [STRING | {"minLength": 1}, {"type": "object", "required": ["apiVersion", "kind", "metadata"]}]}
)

IMAGE = pattern(r"[A-Za-z0-9\[][-A-Za-z0-9._:/@\[\]]*", 512, empty=True)
"""A whole reference of an image, with tag or digest, or none."""
REPOSITORY = pattern(
    r"([A-Za-z0-9][-A-Za-z0-9._]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9]+([-._a-z0-9]*[a-z0-9])?)*", 512
)
"""Where an image is, without tag and digest; a port may follow the host alone."""
TAG = pattern(r"[A-Za-z0-9_][-A-Za-z0-9._]{0,127}", empty=True)
DIGEST = pattern("sha256:[0-9a-f]{64}", empty=True)
ADDRESS = pattern(r"https?://[^\s@?#]+", empty=True)
_HOST_PORT = r"([A-Za-z0-9][-A-Za-z0-9.]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
HOST_PORT = pattern(_HOST_PORT)
OPTIONAL_HOST_PORT = pattern(_HOST_PORT, empty=True)
CIDR = pattern(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?")
DURATION = pattern("([0-9]+(ms|[smhdwy]))+")
PEM = STRING | {"pattern": r"^\s*$|-----BEGIN [A-Z ]+-----[^-]+-----END [A-Z ]+-----"}
SHARE: Schema = {"anyOf": [whole(0), pattern("[0-9]{1,2}%|100%")]}
"""A number of pods, or a share of them in per cent."""
PEERS: Schema = items(closed(podSelector=OBJECT, namespaceSelector=OBJECT, ipBlock=OBJECT) | {"minProperties": 1})
EGRESS: Schema = items(
    closed(
        to=PEERS,
        ports=items(
            closed(
                port={"type": ["integer", "string"]},
                endPort=whole(1, 65535),
                protocol=one_of("TCP", "UDP", "SCTP"),
            )
        ),
    )
)
