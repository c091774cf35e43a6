{{/* The release's name, unless it already says what it is. */}}
{{- define "clustersync.name" -}}
{{- if contains "clustersync" .Release.Name -}}
{{- printf "%s-operator" (.Release.Name | trunc 50 | trimSuffix "-") -}}
{{- else -}}
{{- printf "%s-clustersync-operator" (.Release.Name | trunc 38 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "clustersync.selector" -}}
app.kubernetes.io/name: clustersync
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "clustersync.labels" -}}
{{ include "clustersync.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* "*", or the namespaces as a list. */}}
{{- define "clustersync.watched" -}}
{{- if has "*" .Values.watchNamespaces -}}
*
{{- else -}}
{{ default (list .Release.Namespace) .Values.watchNamespaces | uniq | sortAlpha | join "," }}
{{- end -}}
{{- end -}}
