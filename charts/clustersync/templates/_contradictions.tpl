{{/* Values that are right one by one and wrong together. What is wrong by itself, values.schema.json refuses. */}}
{{- define "clustersync.contradictions" -}}
{{- $v := .Values -}}
{{- if and (has "*" $v.watchNamespaces) (gt (len $v.watchNamespaces) 1) -}}
{{- fail "watchNamespaces: \"*\" is all of them, so it stands alone" -}}
{{- end -}}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) -}}
{{- fail "serviceAccount.name: name the one to use, since serviceAccount.create is false" -}}
{{- end -}}
{{- if and $v.rbac.aggregate (not $v.rbac.create) -}}
{{- fail "rbac.aggregate: makes ClusterRoles, but rbac.create is false" -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.metrics.service.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled: scrapes the Service, but metrics.service.enabled is false" -}}
{{- end -}}
{{- if gt (include "clustersync.seconds" $v.metrics.serviceMonitor.scrapeTimeout | int) (include "clustersync.seconds" $v.metrics.serviceMonitor.interval | int) -}}
{{- fail (printf "metrics.serviceMonitor.scrapeTimeout: %s is longer than metrics.serviceMonitor.interval, %s" $v.metrics.serviceMonitor.scrapeTimeout $v.metrics.serviceMonitor.interval) -}}
{{- end -}}
{{- if and (include "clustersync.budget" .) (lt (int $v.replicas) 2) -}}
{{- fail "podDisruptionBudget.enabled: protects one replica while another is away, but replicas is less than 2" -}}
{{- end -}}
{{- range tuple "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" -}}
{{- if hasKey $v.podLabels . -}}
{{- fail (printf "podLabels: %s is set by the chart" .) -}}
{{- end -}}
{{- end -}}
{{- $limit := dig "limits" "memory" "" $v.resources | toString -}}
{{- $needed := add (int64 $v.queueMemoryMib) (mul 32 (int64 $v.maxClones)) -}}
{{- $given := 0 -}}
{{- if regexMatch "^[0-9]+Mi$" $limit -}}{{- $given = trimSuffix "Mi" $limit | int64 -}}{{- end -}}
{{- if regexMatch "^[0-9]+Gi$" $limit -}}{{- $given = mul 1024 (trimSuffix "Gi" $limit | int64) -}}{{- end -}}
{{- if and $given (le $given $needed) -}}
{{- fail (printf "resources.limits.memory: %s is not more than the %d MiB that queueMemoryMib (%d) and maxClones (%d, 32 MiB each) may take" $limit $needed (int64 $v.queueMemoryMib) (int64 $v.maxClones)) -}}
{{- end -}}
{{- end -}}
