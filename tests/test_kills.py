"""Jobs that are killed at any moment, and what the next call makes of what they left."""

import os
import shutil
from collections import Counter

import pytest
from children import Children
from every_call import CALLS, FIRST, copied, difference, make_scene, whole_state
from killing import (
    PRELUDE,
    READERS,
    WRITERS,
    Template,
    copy_template,
    draw,
    judge,
    left_in,
    outside_of,
    result_differs,
    told,
    unlisted_mags,
)

SEED = os.environ.get("WKDASK_KILL_SEED", "1")
"""What the moments and what follows them are drawn from; another one makes other runs."""
KILLS = int(os.environ.get("WKDASK_KILLS", "10"))
"""Kills of each call and format."""
KINDS = [(name, data_format) for name in CALLS for data_format in ("wkw", "zarr3")]


@pytest.fixture(scope="module")
def warm():
    """Children that have run everything once."""
    with Children(PRELUDE) as children:
        yield children


@pytest.fixture(scope="module")
def template(tmp_path_factory, warm):
    """Return a function that prepares a scene for a call and counts its moments; each is made once."""
    made = {}

    def get(name, data_format, older):
        if (name, data_format, older) not in made:
            call = CALLS[name]
            folder = tmp_path_factory.mktemp("template")
            scene, before = make_scene(folder, data_format)
            call.prepare(scene, before, FIRST, older)
            os.mkdir(scene.path("stranger"))
            with open(scene.path("stranger/file"), "w") as file:
                file.write("mine")
            after = copied(before)
            call.expect(after, FIRST)
            trial = tmp_path_factory.mktemp("trial") / "scene"
            shutil.copytree(folder, trial)
            facts = told(warm.wait(warm.start(RUN, str(trial), data_format, name)))
            assert facts is not None, (name, data_format)
            assert "error" not in facts, facts
            assert difference(whole_state(trial), after) == ""
            assert left_in(trial, finished=True) == []
            shutil.rmtree(trial)
            made[name, data_format, older] = Template(
                str(folder), data_format, name, before, after, facts["count"]
            )
        return made[name, data_format, older]

    return get


RUN = "killing.run_call(*args)"
RESUME = "killing.run_call(*args, resume=True)"
OTHER = "killing.run_other(*args)"

REFUSED = ("AlreadyExistsError", "DamagedHeaderError", "ResumeError", "InterruptedJobError")
"""What a call may say instead of doing anything, where it was made or is half made already."""


def one_kill(template, warm, folder, number, kinds=None):
    """Kill a call at a random moment, let something follow; return (what followed, what is wrong)."""
    name, data_format = template.name, template.data_format
    call = CALLS[name]
    random = draw(SEED, name, data_format, number)
    copy_template(template, folder)
    outside = outside_of(folder)
    at, after = random.randint(1, template.count), random.random() < 0.5
    ended = warm.wait(warm.start(RUN, str(folder), data_format, name, at, after))
    where = f"{name} {data_format} killed {'after' if after else 'before'} {at} of {template.count}"
    facts = told(ended)
    if facts is None and ended.code != -9:
        return "none", [f"{where}: it ended with {ended.code}: {ended.out[-1500:]}"]
    if facts is not None and "error" in facts:
        return "none", [f"{where}: {facts}"]
    was_killed = facts is None
    listed = whole_state(folder)
    keys = [key for key in {*template.before.voxels, *template.after.voxels} if key in listed.voxels]
    keys = sorted(key for key in keys if key[0] != "src")
    actions = ["resume"] * 3 if call.resumes else []
    actions += ["again"] if call.again else []
    keys = [key for key in keys if not listed.boxes[key[:2]].is_empty()]
    if keys:
        actions += [random.choice(sorted(WRITERS)), random.choice(sorted(READERS))]
    if not actions:
        return "nothing", judge(template, listed, "", None, call)
    action, key = random.choice(actions), random.choice(keys) if keys else None
    if action in ("resume", "again"):
        script, args = (RESUME if action == "resume" else RUN), (str(folder), data_format, name)
    else:
        script, args = OTHER, (str(folder), data_format, action, key)
    where += f", then {action} {key if action in WRITERS or action in READERS else ''}"
    ended = warm.wait(warm.start(script, *args))
    facts = told(ended)
    if facts is None:
        return action, [f"{where}: that ended with {ended.code}: {ended.out[-1500:]}"]
    got = whole_state(folder)
    wrong = []
    refused = facts.get("error")
    if refused is not None and not (
        (action in ("again", "resume") and refused in REFUSED)
        or (action in ("rechunk", "compress") and refused == "InterruptedJobError")
    ):
        wrong.append(f"{refused}: {facts['text']}")
    elif refused is not None and action == "resume" and refused != "AlreadyExistsError":
        wrong.append(f"not resumed: {refused}: {facts['text']}")
    if action == "resume" or (action == "again" and not call.inverts):
        if refused is None:
            words = difference(got, template.after)
            wrong += [words] if words else []
            wrong += [f"left {each}" for each in left_in(folder, finished=True)]
            wrong += [f"unlisted {each}" for each in unlisted_mags(folder, got)]
        else:
            wrong += judge(template, got, action, None, call)
            action += " refused"
    else:
        wrong += judge(template, got, action, key or call.whole[0], call)
        if action in READERS and refused is None and (words := result_differs(got, key)):
            wrong.append(words)
        if was_killed and refused is None and action in WRITERS:
            mag = "/".join(map(str, key))
            wrong += [f"left {each}" for each in left_in(folder, finished=False) if each.startswith(mag)]
    if outside_of(folder) != outside:
        wrong.append("a file outside changed")
    return action, [f"{where}: {each}" + (f" ({facts})" if refused else "") for each in wrong]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "data_format"), KINDS)
def test_a_job_that_is_killed(template, warm, tmp_path, name, data_format):
    call, wrong, done = CALLS[name], [], Counter()
    for number in range(KILLS):
        older = call.older and draw(SEED, "older", name, data_format, number).random() < 0.5
        action, found = one_kill(template(name, data_format, older), warm, tmp_path / str(number), number)
        done[action] += 1
        wrong += found
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)
    print(name, data_format, dict(done))
    assert not wrong, "\n".join(wrong)
