"""Condition types and reasons, as typed constants for code, events, documentation and alerts alike.

Conditions follow KEP-1623; ``Reconciling`` and ``Stalled`` follow kstatus (present only when true, never both).
"""

from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions that an OnnxModel reports."""

    READY = "Ready"
    MODEL_VALID = "ModelValid"
    PROGRESSING = "Progressing"
    AVAILABLE = "Available"
    ACCELERATED = "Accelerated"
    OUTDATED = "Outdated"
    WARMED_UP = "WarmedUp"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Why a condition holds. Grouped by the condition that introduces it; ``Ready`` repeats the deciding one."""

    # ModelValid, True
    INSPECTED = "Inspected"
    NOT_REPRODUCIBLE = "NotReproducible"
    # ModelValid, False
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_UNAUTHORIZED = "SourceUnauthorized"
    SOURCE_REFUSED = "SourceRefused"
    CREDENTIALS_NOT_FOUND = "CredentialsNotFound"
    DIGEST_MISMATCH = "DigestMismatch"
    SIGNATURE_INVALID = "SignatureInvalid"
    NOT_ONNX = "NotOnnx"
    CORRUPT = "Corrupt"
    UNSUPPORTED_IR_VERSION = "UnsupportedIRVersion"
    UNSUPPORTED_OPSET = "UnsupportedOpset"
    UNKNOWN_OPERATOR = "UnknownOperator"
    INVALID_GRAPH = "InvalidGraph"
    EXTERNAL_DATA_MISSING = "ExternalDataMissing"
    TOO_LARGE = "TooLarge"
    NO_MATCHING_POOL = "NoMatchingPool"
    POD_TEMPLATE_REJECTED = "PodTemplateRejected"
    SCORING_REJECTED = "ScoringRejected"
    # ModelValid, Unknown
    SOURCE_UNREACHABLE = "SourceUnreachable"

    # Progressing, True
    INSPECTING = "Inspecting"
    SOURCE_CHANGED = "SourceChanged"
    ROLLING_OUT = "RollingOut"
    DOWNLOADING = "Downloading"
    LOADING = "Loading"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    DOWNLOAD_FAILED = "DownloadFailed"
    CREATION_FAILED = "CreationFailed"
    KILLED_WHILE_SERVING = "KilledWhileServing"
    # Progressing, False
    COMPLETE = "Complete"
    OUT_OF_MEMORY = "OutOfMemory"
    LOAD_FAILED = "LoadFailed"
    GOLDEN_TEST_FAILED = "GoldenTestFailed"
    CRASH_LOOP = "CrashLoop"
    INTERFACE_CHANGED = "InterfaceChanged"
    NAME_CONFLICT = "NameConflict"
    DEADLINE_EXCEEDED = "DeadlineExceeded"

    # Available
    MINIMUM_REPLICAS_READY = "MinimumReplicasReady"
    NO_REPLICAS_READY = "NoReplicasReady"
    SUSPENDED = "Suspended"
    SCALED_TO_ZERO = "ScaledToZero"

    # Accelerated
    ON_GPU = "OnGPU"
    FALLBACK_TO_CPU = "FallbackToCPU"
    NOT_REPORTED = "NotReported"

    # WarmedUp
    WARMED = "Warmed"
    NO_INPUT_FOUND = "NoInputFound"

    # Outdated
    SETTINGS_CHANGED = "SettingsChanged"
    NOT_SEALED = "NotSealed"


MEANINGS: dict[Reason, str] = {
    Reason.INSPECTED: "The model was read and can run on the server image that will serve it.",
    Reason.NOT_REPRODUCIBLE: "Valid, but the store offers neither a version nor a strong ETag: pods verify the digest "
    "and cannot start once the file changes. Use a versioned bucket, or pin `sha256`.",
    Reason.SOURCE_NOT_FOUND: "There is no such file or bucket. Retried, in case it comes later.",
    Reason.SOURCE_UNAUTHORIZED: "The store refused the credentials, or wants some. Retried, later each time.",
    Reason.SOURCE_REFUSED: "The address is one that the operator's settings do not allow.",
    Reason.CREDENTIALS_NOT_FOUND: "The Secret does not exist, does not consent by its label, or lacks keys. Retried.",
    Reason.DIGEST_MISMATCH: "The file's SHA-256 is not `spec.model.sha256`.",
    Reason.SIGNATURE_INVALID: "The settings require a signed model, and there is no signature that they trust.",
    Reason.NOT_ONNX: "The file is something else than an ONNX model; the message says what.",
    Reason.CORRUPT: "An ONNX file that is truncated or damaged. Upload it again.",
    Reason.UNSUPPORTED_IR_VERSION: "Written in a newer ONNX format than the server image reads.",
    Reason.UNSUPPORTED_OPSET: "Uses a newer operator set than the server image knows.",
    Reason.UNKNOWN_OPERATOR: "Uses an operator that the server image does not have; the message names the node.",
    Reason.INVALID_GRAPH: "The graph breaks a rule of ONNX; the message names the node.",
    Reason.EXTERNAL_DATA_MISSING: "Weights lie in other files that are not beside the model.",
    Reason.TOO_LARGE: "Beyond a limit of the operator's settings; the message names it.",
    Reason.NO_MATCHING_POOL: "No node pool fits the runtime, the memory and the namespace.",
    Reason.POD_TEMPLATE_REJECTED: "`spec.podTemplate`, `spec.resources` or `spec.warmUp` gives pods that cannot be.",
    Reason.SCORING_REJECTED: "`spec.scoring` cannot be used: its ConfigMap is missing or too large (retried), or the "
    "settings forbid scripts.",
    Reason.SOURCE_UNREACHABLE: "The store did not answer, or not sensibly. Retried, later each time.",
    Reason.INSPECTING: "The model is being read.",
    Reason.SOURCE_CHANGED: "The store holds other bytes than were inspected; they are inspected as a new revision.",
    Reason.ROLLING_OUT: "Pods of the desired revision are being started.",
    Reason.DOWNLOADING: "Pods download the model.",
    Reason.LOADING: "Pods load the model and warm up.",
    Reason.UNSCHEDULABLE: "No node has room for a pod.",
    Reason.QUOTA_EXCEEDED: "A quota or limit range of the namespace forbids the pods.",
    Reason.IMAGE_PULL_FAILED: "An image cannot be pulled.",
    Reason.DOWNLOAD_FAILED: "The download in the pod failed; tried again by the kubelet.",
    Reason.CREATION_FAILED: "The API server or the kubelet refuses a child; retried.",
    Reason.KILLED_WHILE_SERVING: "A pod that served was killed: requests took more memory than its limit leaves. "
    "Not the model's fault; after several times it is a `CrashLoop`.",
    Reason.COMPLETE: "All replicas run the desired revision.",
    Reason.OUT_OF_MEMORY: "The model needed more memory than its limit. Raise `spec.resources.limits.memory`.",
    Reason.LOAD_FAILED: "ONNX Runtime could not load the model, or does not implement what it needs.",
    Reason.GOLDEN_TEST_FAILED: "The model answers its recorded inputs (`spec.model.testData`) otherwise than recorded.",
    Reason.CRASH_LOOP: "The server ends again and again.",
    Reason.INTERFACE_CHANGED: "The update is held: it does not answer the inputs that the revision before was warmed "
    "up with. The old one goes on serving. If that is intended, give inputs that it answers: `spec.warmUp` or "
    "`spec.model.testData`.",
    Reason.NAME_CONFLICT: "An object of the model's name exists that does not belong to it.",
    Reason.DEADLINE_EXCEEDED: "No progress for too long; the message names the cause.",
    Reason.MINIMUM_REPLICAS_READY: "At least one pod takes traffic.",
    Reason.NO_REPLICAS_READY: "No pod takes traffic.",
    Reason.SUSPENDED: "`spec.suspend` is true.",
    Reason.SCALED_TO_ZERO: "`spec.replicas` is 0.",
    Reason.ON_GPU: "All operators run on the GPU.",
    Reason.FALLBACK_TO_CPU: "Some or all operators run on the CPU although a GPU was asked for.",
    Reason.NOT_REPORTED: "No pod has said yet which execution providers run the model.",
    Reason.WARMED: "The model has answered an input before it took traffic; the message says where that came from.",
    Reason.NO_INPUT_FOUND: "The model is loaded and serves, but no input was found that it answers: requests run one "
    "by one, and the first may be slow or fail. Give recorded inputs (`spec.model.testData`) or sizes (`spec.warmUp`). "
    "Only a first version serves so: an update for which none is found is held.",
    Reason.SETTINGS_CHANGED: "The operator's settings would not allow what runs any more. It is left as it is, apart "
    "from replicas, until the spec changes.",
    Reason.NOT_SEALED: "What runs is of a revision that carries no seal of this operator's. It is left as it is, apart "
    "from replicas, until the spec changes.",
}
"""What each reason means to a user, and what to do; the documentation is made from it."""
