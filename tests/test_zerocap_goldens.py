"The recorded captions of the published code through the plain search, those that the notebook of the plain search leaves out for their length"
import pytest, torch
import golden_zerocap as golden
from caption_nb.zerocap.plain import Trace, plain_search
from caption_nb.zerocap.published import Writer, published

SHORT = 'caption_beam1', 'image_plus_text', 'knobs_beam2' # in the notebook

@pytest.mark.parametrize('name', [n for n in golden.CASES if n not in SHORT])
def test_plain_search_repeats_the_recorded_case(name):
    case = golden.load(name)
    w = Writer(golden.tiny_gpt2(case['gpt_seed']), golden.TinyTokenizer(), published(**golden.settings(case)))
    found = plain_search(w, golden.tiny_clip(case['clip_seed']), torch.tensor(case['image_feature']), trace := Trace())
    golden.check_steps(case, trace.steps)
    assert [w.text(h.ids) for h in found]==case['captions']
    golden.close([h.score for h in found], case['final_scores'], tol=1e-3)
