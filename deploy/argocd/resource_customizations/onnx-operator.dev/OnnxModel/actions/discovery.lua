local suspended = obj.spec.suspend == true

local actions = {}
actions["suspend"] = {
  disabled = suspended,
  displayName = "Suspend",
  iconClass = "fa fa-fw fa-pause",
}
actions["resume"] = {
  disabled = not suspended,
  displayName = "Resume",
  iconClass = "fa fa-fw fa-play",
}
actions["refresh"] = {
  disabled = false,
  displayName = "Look at the source again",
  iconClass = "fa fa-fw fa-sync",
}
actions["rollout-now"] = {
  disabled = suspended,
  displayName = "Roll out new pods now",
  iconClass = "fa fa-fw fa-redo",
}
return actions
