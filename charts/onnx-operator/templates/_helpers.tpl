{{- define "onnx-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Names of objects begin with it; the longest addition is that of a Service, whose name has at most 63 characters. */}}
{{- define "onnx-operator.fullname" -}}
{{- if not (hasKey .Values "helmTest") -}}
{{- fail "these are the values of an older chart, without the defaults of this one: upgrade with --reset-then-reuse-values, or with your values file, instead of --reuse-values" -}}
{{- end -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains (include "onnx-operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "onnx-operator.name" .) | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "onnx-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "onnx-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of an object: the chart's own, which nothing replaces, then those of `labels`, then the common ones. */}}
{{- define "onnx-operator.labelsWith" -}}
{{- $own := include "onnx-operator.selectorLabels" .root | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $own (deepCopy .labels) (deepCopy .root.Values.commonLabels)) -}}
{{- end -}}

{{- define "onnx-operator.labels" -}}
{{- include "onnx-operator.labelsWith" (dict "root" . "labels" dict) -}}
{{- end -}}

{{/* What `helm test` runs is none of the operator's pods: no selector of theirs may find it. */}}
{{- define "onnx-operator.testSelectorLabels" -}}
app.kubernetes.io/name: {{ printf "%s-test" (include "onnx-operator.name" . | trunc 58 | trimSuffix "-") | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "onnx-operator.testLabels" -}}
{{- toYaml (merge (include "onnx-operator.testSelectorLabels" . | fromYaml) (include "onnx-operator.labels" . | fromYaml)) -}}
{{- end -}}

{{/* A security context as it is to be written: numbers of values are floating point, and null leaves a field out. */}}
{{- define "onnx-operator.context" -}}
{{- $context := dict -}}
{{- range $name, $value := . -}}
{{- if has $name (list "runAsUser" "runAsGroup" "fsGroup") -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $context $name (int64 $value) -}}
{{- end -}}
{{- else if eq $name "supplementalGroups" -}}
{{- $groups := list -}}
{{- range $value -}}
{{- $groups = append $groups (int64 .) -}}
{{- end -}}
{{- $_ := set $context $name $groups -}}
{{- else -}}
{{- $_ := set $context $name $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* The security context of the operator's pods: the user of the settings, unless another is given for these pods. */}}
{{- define "onnx-operator.podSecurityContext" -}}
{{- $context := dict -}}
{{- with .Values.settings.runAsUser -}}
{{- $context = dict "runAsUser" . "runAsGroup" . "fsGroup" . -}}
{{- end -}}
{{- include "onnx-operator.context" (mergeOverwrite $context (deepCopy .Values.podSecurityContext)) -}}
{{- end -}}

{{/* That of the inspector's container: another user than the controller's; the socket is shared by the group. */}}
{{- define "onnx-operator.inspectorSecurityContext" -}}
{{- $context := dict -}}
{{- with (include "onnx-operator.podSecurityContext" . | fromYaml).runAsUser -}}
{{- $context = dict "runAsUser" (add1 (int64 .)) -}}
{{- end -}}
{{- include "onnx-operator.context" (mergeOverwrite $context (deepCopy .Values.inspector.securityContext)) -}}
{{- end -}}

{{- define "onnx-operator.serviceAccountName" -}}
{{- default (ternary (include "onnx-operator.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "onnx-operator.tag" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end -}}

{{- define "onnx-operator.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (include "onnx-operator.tag" .) -}}
{{- end -}}
{{- end -}}

{{/* The settings file: the values, with what is empty there filled in. */}}
{{- define "onnx-operator.settings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- if not $settings.serverImage -}}
{{- $_ := set $settings "serverImage" (printf "%s/onnx-server:%s" (dir .Values.image.repository) (include "onnx-operator.tag" .)) -}}
{{- end -}}
{{- if not $settings.inspectorImage -}}
{{- $_ := set $settings "inspectorImage" (include "onnx-operator.image" .) -}}
{{- end -}}
{{- if and .Values.templates (not $settings.templatesDirectory) -}}
{{- $_ := set $settings "templatesDirectory" "/etc/onnx-operator/templates" -}}
{{- end -}}
{{- /* Numbers of values are floating point: written as such, a large one would be no integer any more. */ -}}
{{- $_ := set $settings "inspection" (merge (dict "maxModelBytes" (int64 $settings.inspection.maxModelBytes) "maxNodes" (int64 $settings.inspection.maxNodes)) $settings.inspection) -}}
{{- /* Helm drops what is set to null; the settings file has to say it. */ -}}
{{- $user := dict "runAsUser" nil -}}
{{- with $settings.runAsUser -}}
{{- $user = dict "runAsUser" (int64 .) -}}
{{- end -}}
{{- toYaml (merge $user $settings) -}}
{{- end -}}

{{/* What the operator does in each namespace that it watches. */}}
{{- define "onnx-operator.rules" -}}
# What users want. The spec is never written to.
- apiGroups: [onnx-operator.dev]
  resources: [onnxmodels]
  verbs: [get, list, watch]
- apiGroups: [onnx-operator.dev]
  resources: [onnxmodels/status]
  verbs: [patch]
# Children that block the deletion of their model need this, where the cluster checks it (OpenShift does).
- apiGroups: [onnx-operator.dev]
  resources: [onnxmodels/finalizers]
  verbs: [update]
# The children: applied, restored when changed by hand, pruned. An apply that makes an object needs create as well.
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Why a pod is refused by the namespace: asked where a Deployment tells that one is. Never watched.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
# Why a pod does not come up.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- if .Values.settings.allowInspectionPods }}
# Short pods of our own, each owned by its model, look at what only a pod in that namespace can read: volumes, and
# stores that know its service account. The one that is under way is asked for by name. No pod is ever changed.
# Not granted with settings.allowInspectionPods: false.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, create, delete]
{{- end }}
# In the first line of a server's log, what it really runs on; and what an inspection pod found.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- if .Values.settings.allowCredentials }}
# Credentials of a model's source, by name, from Secrets that consent by their label. Never listed, never watched.
# Not granted with settings.allowCredentials: false.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}
{{- if .Values.settings.allowScoring }}
# Scoring scripts of models, by name; those that carry the label onnx-operator.dev/scoring are watched.
# Not granted with settings.allowScoring: false.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
{{- end }}
# For kubectl describe.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
