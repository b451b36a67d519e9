"""Asking for a verdict on a model, as it is by then: the inspector, or a pod in the model's namespace."""

from onnx_operator.api.capabilities import Capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.kinds import ONNX_MODEL, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.sight import ModelChangedError, Sight
from onnx_operator.controller.inspection.conclusions import inspection_key
from onnx_operator.controller.inspection.pod import pod_request
from onnx_operator.controller.inspection.pods import InspectionPods
from onnx_operator.controller.revision.credentials import read_credentials
from onnx_operator.controller.revision.fetching import uses_operator_identity, wants_folder
from onnx_operator.controller.revision.render import uses_gpu
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.inspector import InspectorClient
from onnx_operator.model.inspection.fair import FairPlaces
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.refusal import RefusedError


class Asking:
    """Asks the inspector, or a pod, in turns that no namespace has all of."""

    def __init__(
        self, kube: Kube, sight: Sight, settings: Settings, capabilities: Capabilities, inspector: InspectorClient
    ) -> None:
        self._kube = kube
        self._sight = sight
        self._settings = settings
        self._capabilities = capabilities
        # Made once: their JSON is kept by the object.
        self._without_kernels = capabilities.without_kernels()
        self._inspector = inspector
        self._places = FairPlaces(InspectionLimits.inspections, InspectionLimits.inspections_per_tenant)
        self._pods = InspectionPods(kube, settings)

    async def inspect(self, key: ModelKey, uid: str, inspection: str, *, by_pod: bool) -> InspectionResult:
        """The verdict on a model; whatever keeps it from being read is a refusal.

        Args:
            key: of the model.
            uid: of the model; another one of its name is not read.
            inspection: the key of the inspection that is due; for another one it is not read.
            by_pod: whether only a pod in its namespace can read its source.

        Raises:
            ApiError, OSError: the API server failed on the way, and nothing is known of the source.
        """
        try:
            if by_pod:
                model, spec = await self._to_inspect(key, uid, inspection)
                await self._sight.confirm(model, same_spec=False)
                request = pod_request(spec, await self._request(key[0], spec))
                return await self._pods.inspect(model, spec, inspection, request)
            async with self._places.hold(key[0]):
                _, spec = await self._to_inspect(key, uid, inspection)
                return await self._inspector.inspect(await self._request(key[0], spec))
        except RefusedError as error:
            return error.result()
        except ModelChangedError as error:
            # Whoever looks at it next finds out; nobody else reads this.
            return RefusedError(Reason.SOURCE_UNREACHABLE, f"the model was not read: {error}", retriable=True).result()

    async def _to_inspect(self, key: ModelKey, uid: str, inspection: str) -> tuple[Object, OnnxModelSpec]:
        """The model as it is by now.

        Raises:
            ModelChangedError: another inspection, or none, is due by now.
        """
        model = await self._sight.get(ONNX_MODEL, *key)
        if model is None or model["metadata"]["uid"] != uid:
            raise ModelChangedError("it is gone")
        spec = OnnxModelSpec.model_validate(model["spec"])
        if inspection_key(spec, model, self._settings.signatures) != inspection:
            raise ModelChangedError("it asks for another source by now")
        return model, spec

    async def _request(self, namespace: str, spec: OnnxModelSpec) -> InspectionRequest:
        try:
            credentials = await read_credentials(self._kube, namespace, spec.model)
        except ApiError as error:
            if error.status != 403:
                # That says nothing of the source: what is known of the model stands.
                raise
            message = f"the credentials Secret cannot be read: {error.message}"
            raise RefusedError(Reason.CREDENTIALS_NOT_FOUND, message, retriable=True) from None
        return InspectionRequest(
            tenant=namespace,
            uri=spec.model.uri,
            sha256=spec.model.sha256 or "",
            credentials=credentials,
            workload_identity=uses_operator_identity(spec, self._settings),
            sources=self._settings.sources,
            signatures=self._settings.signatures,
            whole_folder=wants_folder(spec),
            test_data=spec.model.test_data or "",
            capabilities=self._without_kernels if uses_gpu(spec) else self._capabilities,
        )
