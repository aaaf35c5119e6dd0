"""nbgrader's settings: stock commands and `course` work on the same folders and the same gradebook."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from course.students import identifiers

c = get_config()  # noqa: F821  (nbgrader defines it)

root = Path(__file__).resolve().parent
# nbgrader starts `alembic` by its bare name, which is not on the PATH where the environment is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
with suppress(OSError):  # a read-only course can still be read; whoever needs to write says so clearly
    (root / "grading").mkdir(exist_ok=True)

c.CourseDirectory.root = str(root)
c.CourseDirectory.course_id = "build-a-transformer"
c.CourseDirectory.source_directory = "grading/source"
c.CourseDirectory.release_directory = "notebooks"
c.CourseDirectory.submitted_directory = "grading/submitted"
c.CourseDirectory.autograded_directory = "grading/autograded"
c.CourseDirectory.feedback_directory = "grading/feedback"
gradebook = root / "grading" / "gradebook.db"
url = f"sqlite:///{gradebook}"
if make_url(url).database != str(gradebook):  # a sign in the path that means something else in a URL
    url = URL.create("sqlite", database=str(gradebook)).render_as_string()
c.CourseDirectory.db_url = url
# Folders with names that nbgrader cannot keep a student under: `course grade` grades them under another.
with suppress(OSError):
    handed_in = [path.name for path in (root / "grading" / "submitted").iterdir()]
    others = [name for name, identifier in identifiers(handed_in).items() if name != identifier and "," not in name]
    c.CourseDirectory.student_id_exclude = ",".join(others).encode("utf-8", "surrogateescape").decode(errors="replace")
# Kernels listen on this machine's loopback address alone; their warning about it would drown what matters.
c.Execute.extra_arguments = [
    "--HistoryManager.hist_file=:memory:",
    "--IPKernelApp.log_level=ERROR",
    # What a submission passes is not kept in the grader's own workspace, nor is that used to grade it.
    "--IPKernelApp.exec_lines=import os; os.environ['COURSE_WORKSPACE'] = ''",
]
# Scores come from the record of an examination in a jail, by a judge outside it; nbgrader executes nothing itself.
# What was handed in goes no further than the first step: the executed notebook of the record, made harmless, does.
c.Autograde.sanitize_preprocessors = [
    "autograder.verdicts.Verdicts",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Autograde.autograde_preprocessors = [
    "nbgrader.preprocessors.IgnorePattern",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError"}
# A submission that the course has a record of gets the course's feedback page, any other nbgrader's own.
c.GenerateFeedback.exporter_class = "autograder.nbgrader_feedback.FeedbackExporter"
# Students' data stays in `grading`, which git ignores.
c.ExportApp.plugin_class = "autograder.nbgrader_export.GradesExport"
c.ExportPlugin.to = str(root / "grading" / "grades.csv")
c.ZipCollectApp.downloaded_directory = "grading/downloaded"
# `nbgrader zip_collect CHAPTER`: a folder or an archive a student in grading/downloaded/CHAPTER/archive, with notebooks
# in it. The folder's name is the student's; what Moodle puts behind a name is left out. Hidden folders are no work.
c.FileNameCollectorPlugin.named_regexp = (
    r".*/extracted/(?P<student_id>[^/]+?)(?:_assignsubmission_file_?)?"
    r"/(?P<file_id>(?:(?![.]|__MACOSX)[^/]+/)*[^/.][^/]*)$"
)


def _harmless(notebook, resources):
    from autograder.harmless import harmless  # here: it brings torch, and a server that grades nothing need not wait

    return harmless(notebook), resources


# Formgrader shows a notebook that was graded by an older course, or put there by hand, as harmless as any other.
c.HTMLExporter.preprocessors = [_harmless]
