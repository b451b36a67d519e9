-- Removed rather than set to false: the spec is then as it was before "suspend".
obj.spec.suspend = nil
return obj
