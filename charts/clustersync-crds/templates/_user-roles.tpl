{{/* Roles that the cluster's own roles take up. The same file is in both charts. */}}
{{- define "clustersync.userRoles" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .name }}:view
  labels:
    {{- .labels | nindent 4 }}
    rbac.authorization.k8s.io/aggregate-to-view: "true"
    rbac.authorization.k8s.io/aggregate-to-edit: "true"
    rbac.authorization.k8s.io/aggregate-to-admin: "true"
rules:
  - apiGroups: [clustersync.dev]
    resources: [clustersyncs]
    verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .name }}:edit
  labels:
    {{- .labels | nindent 4 }}
    rbac.authorization.k8s.io/aggregate-to-edit: "true"
    rbac.authorization.k8s.io/aggregate-to-admin: "true"
rules:
  - apiGroups: [clustersync.dev]
    resources: [clustersyncs]
    verbs: [create, update, patch, delete, deletecollection]
---
# What the operator itself needs: nobody grants what they do not hold, so only with these rights does the admin of a
# namespace install an operator there.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .name }}:admin
  labels:
    {{- .labels | nindent 4 }}
    rbac.authorization.k8s.io/aggregate-to-admin: "true"
{{ .root.Files.Get "files/role-rules.yaml" }}
{{- end -}}
