{{/* The release's name, unless it already says what it is. */}}
{{- define "clustersync.name" -}}
{{- if contains "clustersync" .Release.Name -}}
{{- printf "%s-operator" (.Release.Name | trunc 50 | trimSuffix "-") -}}
{{- else -}}
{{- printf "%s-clustersync-operator" (.Release.Name | trunc 38 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* For what belongs to no namespace. No namespace holds a colon, so no two releases meet. */}}
{{- define "clustersync.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "clustersync.name" .) -}}
{{- end -}}

{{- define "clustersync.serviceAccount" -}}
{{- default (include "clustersync.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "clustersync.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "clustersync.selector" -}}
app.kubernetes.io/name: clustersync
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "clustersync.about" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "clustersync.labels" -}}
{{ include "clustersync.selector" . }}
{{ include "clustersync.about" . }}
{{- end -}}

{{/* The test's pod is none of the operator's: neither its Service nor its budget may count it. */}}
{{- define "clustersync.testSelector" -}}
app.kubernetes.io/name: clustersync-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* As the restricted profile of pod security asks for. */}}
{{- define "clustersync.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "clustersync.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* "*", or the namespaces as a list. */}}
{{- define "clustersync.watched" -}}
{{- if has "*" .Values.watchNamespaces -}}
*
{{- else -}}
{{ default (list .Release.Namespace) .Values.watchNamespaces | uniq | sortAlpha | join "," }}
{{- end -}}
{{- end -}}

{{/* Whether there is a budget for disruptions: true or nothing. */}}
{{- define "clustersync.budget" -}}
{{- $wish := .Values.podDisruptionBudget.enabled -}}
{{- if eq (toString $wish) "auto" -}}
{{- if gt (int .Values.replicas) 1 -}}true{{- end -}}
{{- else if $wish -}}true{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as 30s or 1m. */}}
{{- define "clustersync.seconds" -}}
{{- if hasSuffix "m" . -}}{{ mul 60 (trimSuffix "m" . | int) }}{{- else -}}{{ trimSuffix "s" . | int }}{{- end -}}
{{- end -}}
