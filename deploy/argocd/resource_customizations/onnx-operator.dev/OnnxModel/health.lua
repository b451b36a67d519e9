-- Ready is the summary of a model. Stalled is there when waiting alone cures nothing.
local health = { status = "Progressing", message = "Waiting for onnx-operator to look at the model" }

local status = obj.status
if status == nil or status.conditions == nil then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

local ready = conditions["Ready"]
if ready == nil then
  return health
end

-- What was said of an earlier generation is not said of this one.
local generation = obj.metadata.generation
if generation ~= nil and (status.observedGeneration or 0) < generation then
  health.message = "Waiting for onnx-operator to see generation " .. tostring(generation)
  return health
end

health.message = (ready.reason or "Unknown") .. ": " .. (ready.message or "")

if ready.reason == "Suspended" or ready.reason == "Paused" then
  health.status = "Suspended"
elseif ready.status == "True" then
  health.status = "Healthy"
elseif conditions["Stalled"] ~= nil and conditions["Stalled"].status == "True" then
  health.status = "Degraded"
end

return health
