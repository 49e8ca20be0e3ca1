"""How radiologists write the findings and places of MedKLIP's triplets (Wu et al. 2023): its 75 entities and 51 positions as patterns.

Entities and positions have the names and the order of the published lists; the patterns are our own. They are matched on lower-case text
without hyphens.

Long because: two lists of names, each with what is written for it.
"""

from __future__ import annotations

import re

ENTITIES: dict[str, str] = {
    "normal": r"normal|within normal limits",
    "clear": r"clear(?!ing|ance)",
    "sharp": r"sharp",
    "sharply": r"sharply",
    "unremarkable": r"unremarkable",
    "intact": r"intact",
    "stable": r"stable|unchanged",
    "free": r"free of",
    "effusion": r"(?<!pericardial )effusions?|hydropneumothora(?:x|ces)|hydrothorax|pleural fluid",
    "opacity": r"opacit(?:y|ies)|opacification|opacified",
    "pneumothorax": r"(?:hydro)?pneumothora(?:x|ces)",
    "edema": r"o?edema(?:tous)?",
    "atelectasis": r"atelecta(?:sis|ses|tic)",
    "tube": r"tubes?|tracheostomy",
    "consolidation": r"consolidat(?:ions?|ive|ed)",
    "process": r"process(?:es)?",
    "abnormality": r"abnormalit(?:y|ies)",
    "enlarge": r"enlargement|enlarged?",
    "tip": r"tips?",
    "low": r"low",
    "pneumonia": r"(?:broncho)?pneumonias?",
    "line": r"lines?(?! of)",
    "congestion": r"congest(?:ion|ed|ive changes?)|(?:vascular(?:ity)?|vasculature|venous|pulmonary) (?:prominence|engorgement)"
    r"|prominen(?:t|ce)(?: of(?: the)?)?(?: (?:central|pulmonary|interstitial|lung))* vascul(?:ar|arity|ature)|venous hypertension"
    r"|indistinct(?: central| pulmonary)? vascular margination|engorged(?: \w+)? vessels",
    "catheter": r"catheters?|port ?a ?cath|mediport",
    "cardiomegaly": r"cardiomegaly|(?:enlarged|enlargement of the|prominent) (?:cardiac|heart|cardiomediastinal)"
    r"(?: (?:silhouette|contour))?"
    r"|(?:heart|cardiac(?: silhouette)?|heart size|cardiac size|cardiomediastinal silhouette)(?: \w+){0,5}?"
    r" (?:is|are|appears|remains|size)(?: \w+){0,4}? (?:enlarged|large|increased|prominent)"
    r"|large heart|heart enlarged|(?:cardiac|heart) enlargement",
    "fracture": r"fractures?|fractured",
    "air": r"air(?! ?space)(?! ?way)(?! trapping)",
    "tortuous": r"tortuous|tortuosity|unfolded|ectatic",
    "lead": r"leads?(?! to)",
    "disease": r"diseases?",
    "calcification": r"calcifi(?:cations?|ed)|calcinosis",
    "prominence": r"prominen(?:ce|t)",
    "device": r"devices?",
    "engorgement": r"engorgement|engorged",
    "picc": r"picc",
    "clip": r"clips?",
    "elevation": r"elevat(?:ion|ed)|eventration",
    "expand": r"(?<!hyper)(?:expanded|expansion)",
    "nodule": r"(?:micro)?nodules?|nodular(?:ity)?(?: (?:density|opacity))?",
    "wire": r"wires?",
    "fluid": r"fluid",
    "degenerative": r"degenerat(?:ive|ion)|spondylosis|osteophytes?",
    "pacemaker": r"pacemakers?|pacer|icd|defibrillator",
    "thicken": r"thicken(?:ed|ing)",
    "marking": r"markings?",
    "scar": r"scar(?:s|ring|red)?|cicatri(?:x|ces)",
    "hyperinflate": r"hyper ?inflat(?:ed|ion)|hyper ?(?:expanded|expansion)|overinflat(?:ed|ion)|hyper ?aerat(?:ed|ion)",
    "blunt": r"blunt(?:ed|ing)",
    "loss": r"loss",
    "widen": r"widen(?:ed|ing)",
    "collapse": r"collapsed?",
    "density": r"densit(?:y|ies)",
    "emphysema": r"(?<!subcutaneous )emphysema(?:tous)?",
    "aerate": r"(?<!hyper)aerat(?:ed|ion)",
    "mass": r"mass(?:es)?",
    "crowd": r"crowd(?:ed|ing)",
    "infiltrate": r"infiltrat(?:es?|ions?|ive)",
    "obscure": r"obscure[sd]?|obscuring|obscuration",
    "deformity": r"deform(?:it(?:y|ies)|ed)|wedging",
    "hernia": r"(?:hiatal |hiatus )?hernias?|herniation",
    "drainage": r"drain(?:s|age)?",
    "distention": r"dist(?:ention|ension|ended)",
    "shift": r"shift(?:ed|s)?",
    "stent": r"stents?",
    "pressure": r"pressure",
    "lesion": r"lesions?",
    "finding": r"findings?",
    "borderline": r"borderline",
    "hardware": r"hardware|spinal fusion",
    "dilation": r"dilat(?:ion|ation|ed)|aneurysm(?:al)?",
    "chf": r"chf|(?:congestive )?heart failure|cardiac (?:failure|decompensation)",
    "redistribution": r"redistribution|cephalization",
    "aspiration": r"aspirat(?:ion|ed)",
    "tail_abnorm_obs": r"granuloma(?:s|ta|tous)?|scoliosis|kyphosis|bronchiectasis|cyst(?:s|ic)?|bullae?|bullous|cavit(?:y|ies|ation|ary)"
    r"|fibrosis|fibrotic|lucenc(?:y|ies)|osteopeni[ac]|osteoporosis|sarcoid(?:osis)?|tuberculosis|copd|pneumomediastinum"
    r"|pneumoperitoneum|(?:lymph)?adenopathy|sclerosis|sclerotic|dislocations?|metasta(?:sis|ses|tic)|plaques?",
    "excluded_obs": r"(?:in|de)creas(?:ed?|ing)|large|small|bigger|smaller|worsen(?:ed|ing)|improv(?:ed|ing|ement)|change[ds]?"
    r"|resol(?:ved|ution|ving)|size",
}

_LUNG = {
    "lower": "(?:lower|basal|basilar|base)",
    "mid": "(?:mid|middle|perihilar)",
    "upper": "upper",
    "apical": "(?:apical|apex)",
}
_BOTH = r"(?:both|bilateral|bilaterally|the) "

POSITIONS: dict[str, str] = {
    "trachea": r"trachea(?:l)?|airway",
    "left_hilar": r"left hil(?:um|ar)",
    "right_hilar": r"right hil(?:um|ar)",
    "hilar_unspec": r"hil(?:um|ar|a)|hilus",
    "left_pleural": r"left(?: sided)?(?: \w+)? (?:pleura(?:l)?(?: space)?|effusions?|pneumothora(?:x|ces))",
    "right_pleural": r"right(?: sided)?(?: \w+)? (?:pleura(?:l)?(?: space)?|effusions?|pneumothora(?:x|ces))",
    "pleural_unspec": r"pleura(?:l)?",
    "heart_size": r"(?:heart|cardiac) size|size of the heart|cardiac silhouette|heart",
    "heart_border": r"(?:heart|cardiac) (?:borders?|contours?)",
    "left_diaphragm": r"left (?:hemi)?diaphragm",
    "right_diaphragm": r"right (?:hemi)?diaphragm",
    "diaphragm_unspec": r"(?:hemi)?diaphragms?",
    "retrocardiac": r"retrocardiac",
    "lower_left_lobe": r"left lower lobe|lll",
    "upper_left_lobe": r"left upper lobe|lul|lingula(?:r)?",
    "lower_right_lobe": r"right lower lobe|rll",
    "middle_right_lobe": r"right middle lobe|rml|middle lobe",
    "upper_right_lobe": r"right upper lobe|rul",
    **{
        f"{side}_{part}_lung": rf"{side}(?: \w+)? {words}(?: lung| zone)*|{words} (?:{side} lung)"
        for side in ("left",)
        for part, words in _LUNG.items()
    },
    "left_lung_unspec": rf"left (?:lung|hemithorax|chest)|{_BOTH}lungs|lungs|lung fields",
    **{
        f"{side}_{part}_lung": rf"{side}(?: \w+)? {words}(?: lung| zone)*|{words} (?:{side} lung)"
        for side in ("right",)
        for part, words in _LUNG.items()
    },
    "right_lung_unspec": rf"right (?:lung|hemithorax|chest)|{_BOTH}lungs|lungs|lung fields",
    "lung_apices": r"apices|(?:lung|bilateral|biapical) ap(?:ex|ical)|biapical",
    "lung_bases": r"(?:lung |bilateral |both )?bases|bibasilar|bibasal|basilar",
    "left_costophrenic": r"left(?: lateral| posterior)? (?:costophrenic|cp)(?: (?:angle|sulcus))?",
    "right_costophrenic": r"right(?: lateral| posterior)? (?:costophrenic|cp)(?: (?:angle|sulcus))?",
    "costophrenic_unspec": r"costophrenic(?: (?:angles?|sulc(?:us|i)))?|cp angles?",
    "cardiophrenic_sulcus": r"cardiophrenic(?: (?:angles?|sulc(?:us|i)))?",
    "mediastinal": r"mediastin(?:um|al)|cardiomediastinal",
    "spine": r"(?:thoracic |lumbar |cervical )?spin(?:e|al)|vertebra(?:l|e)?|discs?",
    "clavicle": r"clavic(?:le|les|ular)",
    "rib": r"ribs?",
    "stomach": r"stomach|gastric",
    "right_atrium": r"right atri(?:um|al)",
    "right_ventricle": r"right ventric(?:le|ular)",
    "aorta": r"aort(?:a|ic)",
    "svc": r"svc|superior vena cava",
    "interstitium": r"interstiti(?:um|al)",
    "parenchymal": r"parenchyma(?:l)?",
    "cavoatrial_junction": r"cavoatrial(?: junction)?|atriocaval(?: junction)?",
    "cardiopulmonary": r"cardiopulmonary",
    "pulmonary": r"pulmonary",
    "lung_volumes": r"lung volumes?",
    "unspecified": r"(?!)",
    "other": r"bon(?:e|es|y)|osseous|skelet(?:on|al)|soft tissues?|chest wall|abdom(?:en|inal)|neck|shoulders?|humerus|humeral|breasts?",
}


def compiled(patterns: dict[str, str]) -> list[re.Pattern[str]]:
    """One pattern a name, of whole words."""
    return [re.compile(rf"\b(?:{p})\b") for p in patterns.values()]
