//! The CustomResourceDefinition, as printed by `clustersync crd`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use super::spec::ClusterSync;

/// Precedes the generated YAML.
const HEADER: &str = "# Generated from src/api by scripts/generate.sh; do not edit.\n";

/// The definition. No field is nullable: the apiserver then treats null as absent, so that no rule can be
/// passed by a null.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = ClusterSync::crd();
    crd.metadata.annotations = None;
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|v| v.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
    crd
}

/// As YAML.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(&definition())?))
}

fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    // The source's line breaks mean nothing: `kubectl explain` breaks lines by itself.
    if let Some(text) = &mut schema.description {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaProps, JSONSchemaPropsOrArray,
    };

    use super::{definition, yaml};

    fn visit(path: &str, schema: &JSONSchemaProps, found: &mut Vec<String>) {
        match schema.type_.as_deref() {
            Some("string")
                if schema.enum_.is_none() && schema.format.is_none() && schema.max_length.is_none() =>
            {
                found.push(format!("{path}: a string without maxLength"));
            }
            Some("array") if schema.max_items.is_none() => {
                found.push(format!("{path}: a list without maxItems"));
            }
            None => found.push(format!("{path}: no type")),
            _ => {}
        }
        if schema.description.is_none() && !path.ends_with("[]") {
            found.push(format!("{path}: no description"));
        }
        for (name, property) in schema.properties.iter().flatten() {
            visit(&format!("{path}.{name}"), property, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            visit(&format!("{path}[]"), items, found);
        }
    }

    #[test]
    fn everything_is_typed_bounded_and_described() {
        let crd = definition();
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let mut found = Vec::new();
        for part in ["spec", "status"] {
            visit(part, &schema.properties.as_ref().unwrap()[part], &mut found);
        }
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn the_committed_definition_is_current() {
        let committed = include_str!("../../crds/clustersyncs.clustersync.dev.yaml");
        assert!(yaml().unwrap() == committed, "run scripts/generate.sh");
    }

    #[test]
    fn it_is_small_enough_to_be_applied_by_kubectl() {
        // The last-applied annotation of kubectl holds at most 256 KiB.
        assert!(yaml().unwrap().len() < 200 * 1024);
    }
}
