"""What the ``fetch`` container is told, and whose identity it reads with. Pure."""

from typing import Any

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import DataPlan, FetchPlan
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.schemes import Identity, claim_of, credential_names, identity_of, scheme_of, secret_key
from onnx_operator.api.sources import ModelFiles, SourceFile
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.model.inspection.testdata import folder_of
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources.opening import may_name_folder


def uses_service_account(spec: OnnxModelSpec) -> bool:
    """Whether the model's source is read by the cloud identity of its own service account: no keys are given."""
    source = spec.model
    return bool(spec.service_account_name and not source.credentials and identity_of(source.uri) is not None)


def uses_operator_identity(spec: OnnxModelSpec, settings: Settings) -> bool:
    """Whether the operator's own cloud identity may read the model's source: only where the settings allow it."""
    source = spec.model
    return settings.sources.use_operator_identity and not source.credentials and identity_of(source.uri) is not None


def reads_by_identity(spec: OnnxModelSpec, settings: Settings) -> bool:
    """Whether the pods read the source by the cloud identity that they run with."""
    return uses_service_account(spec) or uses_operator_identity(spec, settings)


def wants_folder(spec: OnnxModelSpec) -> bool:
    """Whether all files of the source's folder are to reach the pods: a scoring script may read any of them."""
    return spec.scoring is not None and may_name_folder(spec.model.uri)


def escape_dollars(text: str) -> str:
    """Text that the kubelet hands on as it is: it expands ``$(NAME)`` in arguments and variables, and ``$$``."""
    return text.replace("$", "$$")


def fetch_env(
    spec: OnnxModelSpec,
    files: ModelFiles,
    settings: Settings,
    scoring: dict[str, str] | None = None,
    test_data: list[SourceFile] | None = None,
) -> list[dict[str, Any]]:
    """The environment of ``fetch``: its plan, and the keys of the credentials Secret that the scheme uses.

    Raises:
        RefusedError: ``TooLarge``, the plan does not fit.
    """
    uri = spec.model.uri
    plan = FetchPlan(
        uri=uri,
        model=files,
        directory=names.MODEL_DIRECTORY,
        workload_identity=reads_by_identity(spec, settings),
        # Only what these schemes use: certificates of others would take room in vain.
        sources=settings.sources.for_schemes(scheme_of(uri), scheme_of(spec.model.test_data or "")),
        test_data=DataPlan(uri=folder_of(spec.model.test_data), files=test_data, directory=names.TEST_DATA_DIRECTORY)
        if test_data and spec.model.test_data
        else None,
        scoring=scoring or {},
        scoring_directory=names.SCORING_DIRECTORY,
    )
    try:
        variables = plan.to_variables()
    except ValueError as error:
        raise RefusedError(
            Reason.TOO_LARGE,
            f"the model consists of {len(files.files)} files, more than a pod can be told of ({error}); keep its "
            "external data in fewer files (onnx.save_model with all_tensors_to_one_file=True), or make an archive "
            "of it",
        ) from None
    env: list[dict[str, Any]] = [{"name": name, "value": escape_dollars(value)} for name, value in variables.items()]
    credentials = spec.model.credentials
    if credentials:
        env += [
            {
                "name": variable,
                "valueFrom": {
                    "secretKeyRef": {"name": credentials.secret_name, "key": secret_key(variable), "optional": True}
                },
            }
            for variable in credential_names(uri)
        ]
    return env


def identity_marks(spec: OnnxModelSpec, settings: Settings) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations by which the clouds' webhooks give ``fetch``, and no other container, an identity.

    https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html,
    https://github.com/aws/amazon-eks-pod-identity-webhook
    """
    if not reads_by_identity(spec, settings):
        return {}, {}
    identity = identity_of(spec.model.uri)
    if identity is Identity.AZURE:
        annotations = {"azure.workload.identity/skip-containers": names.CONTAINER_SERVER}
        return {"azure.workload.identity/use": "true"}, annotations
    return {}, {"eks.amazonaws.com/skip-containers": names.CONTAINER_SERVER} if identity is Identity.AWS else {}


def needs_pod(spec: OnnxModelSpec, settings: Settings) -> bool:
    """Whether only a pod in the model's own namespace can read the source."""
    if claim_of(spec.model.uri):
        return True
    return uses_service_account(spec) and not uses_operator_identity(spec, settings)
