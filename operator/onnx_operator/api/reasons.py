"""What is known of each reason, once: code, events, documentation and alerts derive from this table."""

from dataclasses import dataclass

from onnx_operator.api.conditions import ConditionType, Reason


@dataclass(frozen=True)
class ReasonFacts:
    """What is known of one reason."""

    condition: ConditionType
    """The condition that introduces it."""
    meaning: str
    """What it means to a user, and what to do; the documentation is made from it."""
    warning: bool = True
    """Whether a change to it is told in an Event of type Warning."""
    retried: bool = False
    """Whether a refusal for it may end without a change of the spec: the file, the Secret or the permission comes."""
    models_fault: bool = False
    """Whether the cause lies in the model (or its resources), not in the cluster."""
    verdict: bool = False
    """Whether looking at a model can end with it; an inspector that claims others is not believed."""
    claimable: bool = False
    """Whether a container may give it itself: anybody's container can write anything into its termination log."""
    under_way: bool = False
    """Whether it tells of progress, not of trouble."""
    precedence: int | None = None
    """Which cause speaks for a rollout when its pods have several: the one that waiting will not cure comes first."""


REASONS: dict[Reason, ReasonFacts] = {
    Reason.INSPECTED: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The model was read and can run on the server image that will serve it.",
        warning=False,
    ),
    Reason.NOT_REPRODUCIBLE: ReasonFacts(
        ConditionType.MODEL_VALID,
        "Valid, but the store offers neither a version nor a strong ETag: pods verify the digest "
        "and cannot start once the file changes. Use a versioned bucket, or pin `sha256`.",
    ),
    Reason.SOURCE_NOT_FOUND: ReasonFacts(
        ConditionType.MODEL_VALID,
        "There is no such file or bucket. Retried, in case it comes later.",
        retried=True,
        verdict=True,
    ),
    Reason.SOURCE_UNAUTHORIZED: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The store refused the credentials, or wants some. Retried, later each time.",
        retried=True,
        verdict=True,
    ),
    Reason.SOURCE_REFUSED: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The address is one that the operator's settings do not allow.",
        verdict=True,
    ),
    Reason.CREDENTIALS_NOT_FOUND: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The Secret does not exist, does not consent by its label, or lacks keys. Retried.",
        retried=True,
    ),
    Reason.DIGEST_MISMATCH: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The file's SHA-256 is not `spec.model.sha256`.",
        models_fault=True,
        claimable=True,
        precedence=9,
        verdict=True,
    ),
    Reason.SIGNATURE_INVALID: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The settings require a signed model, and there is no signature that they trust.",
        verdict=True,
    ),
    Reason.NOT_ONNX: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The file is something else than an ONNX model; the message says what.",
        verdict=True,
    ),
    Reason.CORRUPT: ReasonFacts(
        ConditionType.MODEL_VALID,
        "An ONNX file that is truncated or damaged. Upload it again.",
        verdict=True,
    ),
    Reason.UNSUPPORTED_IR_VERSION: ReasonFacts(
        ConditionType.MODEL_VALID,
        "Written in a newer ONNX format than the server image reads.",
        verdict=True,
    ),
    Reason.UNSUPPORTED_OPSET: ReasonFacts(
        ConditionType.MODEL_VALID,
        "Uses a newer operator set than the server image knows.",
        verdict=True,
    ),
    Reason.UNKNOWN_OPERATOR: ReasonFacts(
        ConditionType.MODEL_VALID,
        "Uses an operator that the server image does not have; the message names the node.",
        verdict=True,
    ),
    Reason.INVALID_GRAPH: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The graph breaks a rule of ONNX; the message names the node.",
        verdict=True,
    ),
    Reason.EXTERNAL_DATA_MISSING: ReasonFacts(
        ConditionType.MODEL_VALID,
        "Weights lie in other files that are not beside the model.",
        verdict=True,
    ),
    Reason.TOO_LARGE: ReasonFacts(
        ConditionType.MODEL_VALID,
        "Beyond a limit of the operator's settings; the message names it.",
        verdict=True,
    ),
    Reason.NO_MATCHING_POOL: ReasonFacts(
        ConditionType.MODEL_VALID, "No node pool fits the runtime, the memory and the namespace."
    ),
    Reason.POD_TEMPLATE_REJECTED: ReasonFacts(
        ConditionType.MODEL_VALID, "`spec.podTemplate`, `spec.resources` or `spec.warmUp` gives pods that cannot be."
    ),
    Reason.SCORING_REJECTED: ReasonFacts(
        ConditionType.MODEL_VALID,
        "`spec.scoring` cannot be used: its ConfigMap is missing or too large (retried), or the "
        "settings forbid scripts.",
    ),
    Reason.SOURCE_UNREACHABLE: ReasonFacts(
        ConditionType.MODEL_VALID,
        "The store did not answer, or not sensibly. Retried, later each time.",
        retried=True,
        verdict=True,
    ),
    Reason.INSPECTING: ReasonFacts(ConditionType.PROGRESSING, "The model is being read.", warning=False),
    Reason.SOURCE_CHANGED: ReasonFacts(
        ConditionType.PROGRESSING,
        "The store holds other bytes than were inspected; they are inspected as a new revision.",
        claimable=True,
        precedence=10,
    ),
    Reason.ROLLING_OUT: ReasonFacts(
        ConditionType.PROGRESSING, "Pods of the desired revision are being started.", warning=False, under_way=True
    ),
    Reason.DOWNLOADING: ReasonFacts(
        ConditionType.PROGRESSING, "Pods download the model.", warning=False, under_way=True, precedence=19
    ),
    Reason.LOADING: ReasonFacts(
        ConditionType.PROGRESSING, "Pods load the model and warm up.", warning=False, under_way=True, precedence=20
    ),
    Reason.UNSCHEDULABLE: ReasonFacts(ConditionType.PROGRESSING, "No node has room for a pod.", precedence=15),
    Reason.QUOTA_EXCEEDED: ReasonFacts(
        ConditionType.PROGRESSING,
        "A quota or limit range of the namespace forbids the pods (where it is ModelValid's reason, the pod that "
        "inspects), and they cannot be made to fit by themselves; the message says what to do.",
        precedence=13,
    ),
    Reason.IMAGE_PULL_FAILED: ReasonFacts(ConditionType.PROGRESSING, "An image cannot be pulled.", precedence=12),
    Reason.DOWNLOAD_FAILED: ReasonFacts(
        ConditionType.PROGRESSING,
        "The download in the pod failed; tried again by the kubelet.",
        claimable=True,
        precedence=11,
    ),
    Reason.CREATION_FAILED: ReasonFacts(
        ConditionType.PROGRESSING,
        "The API server or the kubelet refuses a child, or a policy or webhook of the cluster does; retried.",
        precedence=14,
    ),
    Reason.API_UNAVAILABLE: ReasonFacts(
        ConditionType.PROGRESSING,
        "The API server fails calls that the model needs (too busy, too large, timed out), so that what the spec asks "
        "for is not all in place; the message has its words. Retried, later each time; what runs goes on.",
    ),
    Reason.KILLED_WHILE_SERVING: ReasonFacts(
        ConditionType.PROGRESSING,
        "A pod that served was killed: requests took more memory than its limit leaves. "
        "Not the model's fault; after several times it is a `CrashLoop`.",
        precedence=8,
    ),
    Reason.ROLLOUT_PAUSED: ReasonFacts(
        ConditionType.PROGRESSING,
        "Somebody has paused the Deployment (`kubectl rollout pause`), so that its pods are not replaced. "
        "`kubectl rollout resume deployment/NAME` ends that.",
    ),
    Reason.RESTARTING: ReasonFacts(
        ConditionType.PROGRESSING,
        "A container ended and is started again; once may be chance. A `CrashLoop` in the kubelet's back-off, or after "
        "two restarts.",
        precedence=18,
    ),
    Reason.SCALING: ReasonFacts(
        ConditionType.PROGRESSING,
        "Pods of a revision that serves are fewer or more than wanted; the message says what keeps those that lack. "
        "The model stays Ready.",
        warning=False,
        under_way=True,
    ),
    Reason.COMPLETE: ReasonFacts(ConditionType.PROGRESSING, "All replicas run the desired revision.", warning=False),
    Reason.OUT_OF_MEMORY: ReasonFacts(
        ConditionType.PROGRESSING,
        "The model needed more memory than its limit. Raise `spec.resources.limits.memory`.",
        models_fault=True,
        precedence=6,
    ),
    Reason.LOAD_FAILED: ReasonFacts(
        ConditionType.PROGRESSING,
        "ONNX Runtime could not load the model, or does not implement what it needs.",
        models_fault=True,
        claimable=True,
        precedence=1,
    ),
    Reason.TEST_FAILED: ReasonFacts(
        ConditionType.PROGRESSING,
        "The model answers its test inputs (`spec.model.testData`) otherwise than expected.",
        models_fault=True,
        claimable=True,
        precedence=2,
    ),
    Reason.CRASH_LOOP: ReasonFacts(
        ConditionType.PROGRESSING, "The server ends again and again.", models_fault=True, precedence=7
    ),
    Reason.UNRESPONSIVE: ReasonFacts(
        ConditionType.PROGRESSING,
        "A pod that served does not answer its readiness probe any more: it has more to do than it can, or hangs. "
        "False only where no pod serves.",
        precedence=16,
    ),
    Reason.NODE_LOST: ReasonFacts(
        ConditionType.PROGRESSING,
        "A pod's node does not answer, is gone, or ended the pod. Not the model's fault; Kubernetes replaces the pod. "
        "False only where no pod serves.",
        precedence=17,
    ),
    Reason.INTERFACE_CHANGED: ReasonFacts(
        ConditionType.PROGRESSING,
        "The update is held, and the old one goes on serving. Either its inputs or outputs would break callers: the "
        "message says how, and gives the patch (`spec.rollout.acceptInterface`) that rolls it out all the same. Or "
        "its pod does not answer the inputs that the revision before was warmed up with: if that is intended, give "
        "inputs that it answers, `spec.warmUp` or `spec.model.testData`.",
        models_fault=True,
        claimable=True,
        precedence=4,
    ),
    Reason.ROLLED_BACK: ReasonFacts(
        ConditionType.PROGRESSING,
        "The update failed by its own fault, which the message names with its pods' last words, and the last good "
        "revision runs again. It is not tried again until the spec or the source changes, or the annotation "
        "`onnx-operator.dev/refresh`. `spec.rollout.autoRollback: false` turns going back off.",
    ),
    Reason.SOURCE_HELD: ReasonFacts(
        ConditionType.PROGRESSING,
        "The source holds other bytes than were rolled out, and `spec.model.onChange` or the settings say Hold: what "
        "serves goes on, and no pod gets them. Set `spec.model.sha256` to their digest, or a new value of the "
        "annotation `onnx-operator.dev/refresh`, to have them rolled out; or put the old ones back and refresh.",
    ),
    Reason.NAME_CONFLICT: ReasonFacts(
        ConditionType.PROGRESSING, "An object of the model's name exists that does not belong to it."
    ),
    Reason.DEADLINE_EXCEEDED: ReasonFacts(
        ConditionType.PROGRESSING, "No progress for too long; the message names the cause."
    ),
    Reason.PAUSED: ReasonFacts(
        ConditionType.PROGRESSING,
        "The OnnxModel carries the annotation `onnx-operator.dev/paused`: nothing of it is changed until that is taken "
        "away. `Ready` is False where what the spec asks for by now does not run.",
        warning=False,
    ),
    Reason.NEWER_VERSION: ReasonFacts(
        ConditionType.PROGRESSING,
        "A newer version of the operator has made what this one cannot read: the spec, or the newest revision. What "
        "runs is kept, repaired and scaled; nothing older is rolled out, and no change of the spec counts. Upgrade the "
        "operator. `Ready` is False where the spec has changed since.",
    ),
    Reason.MINIMUM_REPLICAS_READY: ReasonFacts(
        ConditionType.AVAILABLE, "At least one pod takes traffic.", warning=False
    ),
    Reason.NO_REPLICAS_READY: ReasonFacts(ConditionType.AVAILABLE, "No pod takes traffic.", warning=False),
    Reason.SUSPENDED: ReasonFacts(ConditionType.AVAILABLE, "`spec.suspend` is true.", warning=False),
    Reason.SCALED_TO_ZERO: ReasonFacts(ConditionType.AVAILABLE, "`spec.replicas` is 0.", warning=False),
    Reason.ON_GPU: ReasonFacts(ConditionType.ACCELERATED, "All operators run on the GPU.", warning=False),
    Reason.FALLBACK_TO_CPU: ReasonFacts(
        ConditionType.ACCELERATED,
        "Some or all operators run on the CPU although a GPU was asked for.",
        models_fault=True,
        claimable=True,
        precedence=3,
    ),
    Reason.NOT_REPORTED: ReasonFacts(
        ConditionType.ACCELERATED, "No pod has said yet which execution providers run the model.", warning=False
    ),
    Reason.WARMED: ReasonFacts(
        ConditionType.WARMED_UP,
        "The model has answered an input before it took traffic; the message says where that came from.",
        warning=False,
    ),
    Reason.NO_INPUT_FOUND: ReasonFacts(
        ConditionType.WARMED_UP,
        "The model is loaded and serves, but no input was found that it answers: requests run one "
        "by one, and the first may be slow or fail. Give test data (`spec.model.testData`) or sizes "
        "(`spec.warmUp`). Only a first version serves so: an update for which none is found is taken back.",
        models_fault=True,
        claimable=True,
        precedence=5,
    ),
    Reason.SETTINGS_CHANGED: ReasonFacts(
        ConditionType.OUTDATED,
        "The operator's settings would not allow what runs any more. It is left as it is, apart "
        "from replicas, until the spec changes.",
    ),
    Reason.NOT_SEALED: ReasonFacts(
        ConditionType.OUTDATED,
        "What runs is of a revision that carries no seal of this operator's. It is left as it is, apart "
        "from replicas, until the spec changes.",
    ),
    Reason.ALTERED: ReasonFacts(
        ConditionType.OUTDATED,
        "Somebody else has set fields of the children that change what the model's pods do, such as a container's "
        "`command` or `hostNetwork`. They are left, and named; what is the operator's own is restored.",
    ),
    Reason.SCALED_BY_OTHERS: ReasonFacts(
        ConditionType.OUTDATED,
        "Somebody else scales the Deployment again and again, such as an autoscaler. Point it at the OnnxModel, which "
        "has `/scale`; until then replicas are restored ever less often, every ten minutes in the end.",
    ),
}


def precedence(reason: Reason) -> int:
    """The place of a cause among others, the gravest first; what has none of its own comes last."""
    found = REASONS[reason].precedence
    return len(REASONS) if found is None else found


VERDICTS = frozenset(reason for reason, facts in REASONS.items() if facts.verdict)
"""Reasons that looking at a model can give; others are the controller's own to tell."""
