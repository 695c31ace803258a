"""The YAML of ``cluster/kubernetes`` against the schema that dask's operator ships; no Kubernetes is started."""

import importlib.metadata

import pytest
import yaml
from repository import ROOT

FOLDER = ROOT / "cluster/kubernetes"


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.fixture(scope="module")
def schema():
    """The schema of a DaskCluster, strict: a field that it does not know is a mistake, not an extra."""
    try:
        files = importlib.metadata.files("dask-kubernetes") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the operator's schema is not here (pip install --no-deps dask-kubernetes)")
    (path,) = (file for file in files if file.match("crds/daskcluster.yaml"))
    (resource,) = yaml.load_all(path.locate().read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert resource["spec"]["group"] == "kubernetes.dask.org"
    (version,) = resource["spec"]["versions"]
    assert version["name"] == "v1"
    return strict(version["schema"]["openAPIV3Schema"])


def strict(schema):
    """Return a schema of Kubernetes as JSON schema that refuses unknown fields, as `kubectl --validate` does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {name: strict(part) for name, part in schema.items()}
    properties = schema.get("properties")
    if isinstance(properties, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["properties"] = {name: strict(part) for name, part in properties.items()}
        result["additionalProperties"] = False
    return result


def errors(document, schema):
    jsonschema = pytest.importorskip("jsonschema")
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def dask_schema(schema):
    """The whole document: what every resource of Kubernetes has, and the operator's part."""
    return {
        **schema,
        "properties": {
            **schema["properties"],
            "apiVersion": {"const": "kubernetes.dask.org/v1"},
            "kind": {"const": "DaskCluster"},
            "metadata": {"type": "object", "required": ["name"]},
        },
    }


def job_schema(schema):
    """A Job of Kubernetes, whose pod has the same schema as a worker's."""
    pod = schema["properties"]["spec"]["properties"]["worker"]["properties"]["spec"]
    return {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": "batch/v1"},
            "kind": {"const": "Job"},
            "spec": {
                "type": "object",
                "required": ["template"],
                "additionalProperties": False,
                "properties": {
                    "backoffLimit": {"type": "integer"},
                    "template": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"metadata": {"type": "object"}, "spec": pod},
                    },
                },
            },
        },
    }


def test_the_cluster_is_what_the_operator_takes(schema):
    cluster, policy = documents("cluster.yaml")
    assert errors(cluster, dask_schema(schema)) == []
    assert policy["kind"] == "NetworkPolicy"


def test_the_job_is_a_pod_that_runs(schema):
    (job,) = documents("job.yaml")
    assert errors(job, job_schema(schema)) == []
    assert job["spec"]["template"]["spec"]["restartPolicy"] in ("OnFailure", "Never")  # all that a Job allows


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "worker", "replicas"), "four"),
        (("spec", "worker", "replica"), 4),
        (("spec", "worker", "spec", "container"), []),
        (("spec", "worker", "spec", "containers", 0, "volumeMounts", 0, "mountpath"), "/data"),
        (("spec", "scheduler", "service", "ports", 0, "port"), "8786 "),
    ],
)
def test_a_mistake_is_found(schema, path, value):
    cluster, _ = documents("cluster.yaml")
    place = cluster
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert errors(cluster, dask_schema(schema))


def test_the_parts_fit_together():
    cluster, policy = documents("cluster.yaml")
    (job,) = documents("job.yaml")
    worker, scheduler = cluster["spec"]["worker"]["spec"], cluster["spec"]["scheduler"]
    driver = job["spec"]["template"]["spec"]
    (ours,), (theirs,) = driver["containers"], worker["containers"]

    assert ours["image"] == theirs["image"] == scheduler["spec"]["containers"][0]["image"]
    assert ours["volumeMounts"] == theirs["volumeMounts"]  # the same absolute path
    assert driver["volumes"] == worker["volumes"]
    assert driver["securityContext"] == worker["securityContext"]  # files of one owner
    name = cluster["metadata"]["name"]
    assert f"tcp://{name}-scheduler:8786" in ours["command"]
    assert scheduler["service"]["selector"]["dask.org/cluster-name"] == name
    assert scheduler["service"]["type"] == "ClusterIP"
    assert policy["spec"]["podSelector"]["matchLabels"] == {"dask.org/cluster-name": name}
    labels = job["spec"]["template"]["metadata"]["labels"]
    allowed = [
        source.get("podSelector", {}).get("matchLabels") for source in policy["spec"]["ingress"][0]["from"]
    ]
    assert labels in allowed


def test_the_driver_runs_a_command_that_there_is():
    from wkdask.cli import main

    (job,) = documents("job.yaml")
    program, name, *words = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert program == "wkdask"
    with main.commands[name].make_context(name, words) as context:  # parses, and runs nothing
        assert context.params["dataset"] == "/data/dataset"
        assert context.params["scheduler"] == "tcp://wkdask-scheduler:8786"
        assert context.params["resume"]
