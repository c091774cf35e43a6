-- Health of a ClusterSync for Argo CD, in the part of Lua that 5.1 and gopher-lua have in common.
--   Progressing  on its way: waiting, cloning, catching up, cutting over, or an end away for over a minute
--   Healthy      streams, or the cutover is done
--   Suspended    rests, because spec.state says so
--   Degraded     stopped: a person must act, as the message says
local function answer(status, message)
  return { status = status, message = message or "" }
end

if obj.metadata.deletionTimestamp ~= nil then
  return answer("Progressing", "Being deleted.")
end
if obj.status == nil or obj.status.conditions == nil then
  return answer("Progressing", "Waiting for the operator.")
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return answer("Progressing", "Waiting for the operator to see the change.")
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local function is(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

if is("Stalled") then
  return answer("Degraded", conditions.Stalled.reason .. ": " .. conditions.Stalled.message)
end
if is("Ready") then
  if conditions.Ready.reason == "Paused" then
    return answer("Suspended", conditions.Ready.message)
  end
  return answer("Healthy", conditions.Ready.message)
end
if conditions.Ready ~= nil then
  return answer("Progressing", conditions.Ready.reason .. ": " .. conditions.Ready.message)
end
return answer("Progressing", "Waiting for the operator.")
