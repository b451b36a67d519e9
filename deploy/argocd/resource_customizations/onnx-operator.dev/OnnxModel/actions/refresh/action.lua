-- Any new value makes the operator look at the source again. The resourceVersion is new with each change of the object,
-- this one included, and so needs no clock.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["onnx-operator.dev/refresh"] = "after-" .. obj.metadata.resourceVersion
return obj
