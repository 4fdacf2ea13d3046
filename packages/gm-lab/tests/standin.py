"""A stand-in for W&B's server on the loopback interface: it answers what W&B asks and records what it is sent."""

import json
import re
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    """Records runs by id: what they were created with, their history, summary, exit code, files and artifacts.

    Args:
        delay: Seconds to wait before each answer.
        refuse: Whether to refuse every key.
    """

    def __init__(self, delay=0.0, refuse=False):
        self.delay, self.refuse = delay, refuse
        self.runs = {}
        self.history = defaultdict(list)
        self.summary = defaultdict(dict)
        self.exit_codes = {}
        self.uploads = {}
        self.artifacts = []
        self.projects = []
        self.views = []
        self.unknown = []
        self.requests = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # W&B leaves connections open when it is stopped
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def config(self, run):
        return {name: entry["value"] for name, entry in json.loads(self.runs[run]["config"]).items()}

    def _handler(stand_in):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _reply(self, body, status=200):
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _body(self):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def do_GET(self):
                self._reply({})

            def do_PUT(self):
                with stand_in._lock:
                    stand_in.uploads[self.path.removeprefix("/upload/")] = self._body()
                self._reply({})

            def do_POST(self):
                content = self._body()
                time.sleep(stand_in.delay)
                with stand_in._lock:
                    stand_in.requests += 1
                    if stand_in.refuse:
                        self._reply({"errors": [{"message": "invalid API key"}]}, 401)
                    elif self.path.endswith("/file_stream"):
                        self._reply(stand_in._stream(self.path.split("/")[-2], json.loads(content)))
                    elif self.path == "/graphql":
                        self._reply(stand_in._answer(json.loads(content)))
                    else:
                        self._reply({})

        return Handler

    def _stream(self, run, body):
        for name, part in body.get("files", {}).items():
            lines = [json.loads(line) for line in part["content"]]
            if name == "wandb-history.jsonl":
                del self.history[run][part["offset"] :]
                self.history[run] += lines
            if name == "wandb-summary.json":
                self.summary[run] |= lines[-1]
        if body.get("complete"):
            self.exit_codes[run] = body["exitcode"]
        return {}

    def _answer(self, body):
        name = re.search(r"(?:query|mutation)\s*(\w*)", body["query"])[1]
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        answer = getattr(self, f"_{snake}", None)
        if answer is None:
            self.unknown.append(name or body["query"])
            return {"errors": [{"message": f"{name} is unknown"}]}
        return {"data": answer(body.get("variables") or {}, body["query"])}

    def _url(self, name):
        return f"{self.url}/upload/{name}"

    def _viewer(self, given, query):
        teams = {"edges": [{"node": {"id": "team", "name": "me"}}]}
        return {"viewer": {"id": "viewer", "entity": "me", "username": "me", "flags": "{}", "teams": teams}}

    def _server_features_query(self, given, query):
        return {"serverInfo": {"features": []}}

    def _run_resume_status(self, given, query):
        known = self.runs.get(given["name"])
        if known is None:
            return {"model": {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}, "bucket": None}}
        history = self.history[given["name"]]
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "summaryMetrics": json.dumps(self.summary[given["name"]]),
            "displayName": known["displayName"],
            "logLineCount": 0,
            "historyLineCount": len(history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in history[-1:]]),
            "eventsTail": "[]",
            "config": known["config"],
            "tags": known.get("tags") or [],
            "wandbConfig": '{"t": 1}',
        }
        return {"model": {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}, "bucket": bucket}}

    def _upsert_bucket(self, given, query):
        new = given["name"] not in self.runs
        known = self.runs.setdefault(given["name"], {})
        known.update({name: value for name, value in given.items() if value is not None})
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": given.get("entity") or "me"}}
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "displayName": known.get("displayName"),
            "description": None,
            "config": known.get("config", "{}"),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(self.history[given["name"]]),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _create_run_files(self, given, query):
        files = [{"name": name, "uploadUrl": self._url(f"{given['run']}/{name}")} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _mark_run_files_uploaded(self, given, query):
        return {"markRunFilesUploaded": {"success": True}}

    def _create_artifact(self, given, query):
        given = given.get("input") or given
        self.artifacts.append(given)
        name = f"artifact{len(self.artifacts) - 1}"
        sequence = {"id": f"sequence-{name}", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": sequence}}}

    def _fetch_artifact_digest_algorithm(self, given, query):
        return {"project": None}

    def _create_artifact_manifest(self, given, query):
        given = given.get("input") or given
        name = f"{given['artifactID']}/{given['name']}"
        file = {"id": name, "name": name, "displayName": name, "uploadUrl": self._url(name), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _create_artifact_files(self, given, query):
        files = given.get("input") or given
        files = files.get("artifactFiles") or files.get("specs")
        nodes = [
            {
                "id": item["name"],
                "name": item["name"],
                "displayName": item["name"],
                "storagePath": item["name"],
                "uploadUrl": self._url(f"{item['artifactID']}/{item['name']}"),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": item["artifactID"]},
            }
            for item in files
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _commit_artifact(self, given, query):
        return {"commitArtifact": {"artifact": {"id": (given.get("input") or given)["artifactID"], "digest": "0"}}}

    def _get_projects(self, given, query):
        projects = {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"models": projects}

    def _upsert_view(self, given, query):
        self.views.append(given)
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        names = ("name", "displayName", "description", "type", "spec")
        view = {"id": "dmlldzox", "project": project, "updatedAt": "2026-01-01T00:00:00Z"}
        return {"upsertView": {"view": view | {name: given[name] for name in names}, "inserted": True}}

    def _create_project(self, given, query):
        name = given["input"]["name"]
        self.projects.append(name)
        project = {"id": "p", "name": name, "entityName": "me", "description": "", "access": "PRIVATE", "views": "{}"}
        return {"result": {"project": project, "model": project, "inserted": True}}

    def _project_internal_id(self, given, query):
        return {"project": {"internalId": "cDox"}}
