-- A new annotation of the pods is a new revision: it is rolled out as this version of the operator and its settings make
-- it, and the old one serves until it is ready.
local template = obj.spec.podTemplate or {}
local metadata = template.metadata or {}
local annotations = metadata.annotations or {}

annotations["onnx-operator.dev/rollout"] = "after-" .. obj.metadata.resourceVersion
metadata.annotations = annotations
template.metadata = metadata
obj.spec.podTemplate = template
return obj
